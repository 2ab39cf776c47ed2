// Package firecracker runs microVMs on the real Firecracker, without an SDK:
// a client of its API (client.go, requests.go, types*.go, limits.go), the
// process (process.go, output.go) and the driver that joins them.
//
// With root's rights the VMM runs in a jail that Firecracker's jailer makes
// (jail.go): a user, a root directory, namespaces and cgroups of its own,
// started and ended by a guard (guard.go). Without, it runs as the caller. In
// both it has its own seccomp filters, an empty environment and only the
// descriptors listed here. The package knows no images and no networks, and
// decides nothing by what a guest prints.
//
// Lifecycle: Start is a list of named steps. What a step acquires it registers
// to be freed, in one list that serves a failed start and the end of a VM
// alike. The VMM dies with the process that called Start; Clean frees what
// that process could not.
package firecracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

// Options configure a Driver. The zero value is usable.
type Options struct {
	// Binary is the path of firecracker, "" to look on PATH.
	Binary string
	// NoJail runs Firecracker as root when the caller is root. Others have no
	// jail in any case.
	NoJail bool
	// Jailer is the path of jailer, "" to look beside firecracker, then on PATH.
	Jailer string
	// JailIDs are the user and group ids of jails, the zero value for
	// DefaultJailIDs.
	JailIDs IDRange
	// Guard is a command that calls RunGuard with the one argument that the
	// driver appends. A jail needs it.
	Guard []string
	// Templates lets VMs go on from the templates of Config.Templates. VMs of one
	// template share what the kernel of the guest chose at random at its boot.
	Templates bool
	// Log gets the steps with their durations, and Firecracker's own log, at
	// debug level. nil is silence.
	Log *slog.Logger
}

// Driver implements vmm.Driver. Safe for concurrent use.
type Driver struct {
	o    Options
	log  *slog.Logger
	host host
}

var (
	_ vmm.Driver  = (*Driver)(nil)
	_ vmm.Cleaner = (*Driver)(nil)
)

// New returns a Driver. It looks at nothing yet.
func New(o Options) *Driver {
	d := &Driver{o: o, log: o.Log, host: thisHost()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.o.JailIDs == (IDRange{}) {
		d.o.JailIDs = DefaultJailIDs()
	}
	return d
}

// Name is "firecracker".
func (d *Driver) Name() string { return "firecracker" }

// Start boots a VM as vmm.Driver says. An error names the step, and what
// Firecracker said if it had begun to run.
func (d *Driver) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	m, err := d.start(ctx, c)
	if errors.Is(err, template.ErrUnusable) && ctx.Err() == nil {
		d.log.Warn("firecracker boots the guest anew", "vm", c.ID, "err", err)
		c.Templates = ""
		m, err = d.start(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("start firecracker: %w", err)
	}
	return m, nil
}

func (d *Driver) start(ctx context.Context, c vmm.Config) (*machine, error) {
	m, err := d.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := d.findTemplate(ctx, m); err != nil {
		return nil, err
	}
	steps := m.startSteps()
	if m.origin != nil {
		steps = append(steps, step{"load the template", m.load}, step{"resume", m.handingOver(m.resume)})
	} else {
		steps = append(steps, m.bootSteps()...)
	}
	if err := m.do(ctx, steps); err != nil {
		m.abandon()
		return nil, err
	}
	go m.watch()
	return m, nil
}

// step is a part of a start.
type step struct {
	name string
	run  func(context.Context) error
}

// startSteps lead to a Firecracker that waits for requests.
func (m *machine) startSteps() []step {
	return []step{
		{"clear the sockets", m.clearSockets},
		{"open the console", m.openConsole},
		{"make the jail", m.buildJail},
		{"name the files", m.nameFiles},
		{"open the log", m.openLog},
		{"start the process", m.startProcess},
		{"wait for the API", m.waitReady},
	}
}

// bootSteps make it boot.
func (m *machine) bootSteps() []step {
	return []step{
		{"configure", m.configure},
		{"boot", m.handingOver(m.boot)},
	}
}

// do takes one step after the other.
func (m *machine) do(ctx context.Context, steps []step) error {
	for _, s := range steps {
		begun := time.Now()
		err := ctx.Err()
		if err == nil {
			err = s.run(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, m.explain(err))
		}
		m.log.Debug("firecracker", "step", s.name, "took", time.Since(begun))
	}
	return nil
}

// prepare checks everything that can be checked before anything is made.
func (d *Driver) prepare(ctx context.Context, c vmm.Config) (*machine, error) {
	c, err := absolute(c)
	if err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	names, err := filesIn(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := checkFiles(c); err != nil {
		return nil, err
	}
	if err := checkNICs(c, d.o.Guard); err != nil {
		return nil, err
	}
	binary, err := d.lookup()
	if err != nil {
		return nil, err
	}
	if p := d.host.check(); p != nil {
		return nil, p
	}
	log := d.log.With("vm", c.ID)
	jail, jailer, err := d.newJail(ctx, binary, log)
	if err != nil {
		return nil, err
	}
	m := &machine{
		config: c, files: names, binary: binary, jail: jail, jailer: jailer, guard: d.o.Guard,
		log: log, done: make(chan struct{}),
	}
	if m.requests, err = plan(m.seen(c)); err != nil {
		return nil, err
	}
	return m, nil
}

// seen is c as Firecracker sees it.
func (m *machine) seen(c vmm.Config) vmm.Config {
	switch {
	case m.jail != nil:
		return inside(c)
	case m.named || len(c.NICs) > 0:
		return guarded(c, m.named)
	}
	return c
}

// problem is a reason why the driver cannot work here, and what to do.
type problem struct{ reason, fix string }

func (p *problem) Error() string {
	if p.fix == "" {
		return p.reason
	}
	return p.reason + " (" + p.fix + ")"
}

// Unwrap makes every problem a vmm.ErrUnavailable.
func (p *problem) Unwrap() error { return vmm.ErrUnavailable }

// asProblem finds the problem in err, or makes one of it.
func asProblem(err error) *problem {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	return &problem{reason: err.Error()}
}
