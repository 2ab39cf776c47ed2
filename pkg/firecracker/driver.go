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
	m, err := d.prepare(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("start firecracker: %w", err)
	}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"clear the sockets", m.clearSockets},
		{"open the console", m.openConsole},
		{"make the jail", m.buildJail},
		{"open the log", m.openLog},
		{"start the process", m.startProcess},
		{"wait for the API", m.waitReady},
		{"configure", m.configure},
		{"hand the network devices over", m.handOver},
		{"boot", m.boot},
	}
	for _, s := range steps {
		begun := time.Now()
		err := ctx.Err()
		if err == nil {
			err = s.run(ctx)
		}
		if err != nil {
			err = m.explain(err)
			m.abandon()
			return nil, fmt.Errorf("start firecracker: %s: %w", s.name, err)
		}
		m.log.Debug("firecracker", "step", s.name, "took", time.Since(begun))
	}
	go m.watch()
	return m, nil
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
	seen := c
	switch {
	case jail != nil:
		seen = inside(c)
	case len(c.NICs) > 0:
		seen = guarded(c)
	}
	requests, err := plan(seen)
	if err != nil {
		return nil, err
	}
	return &machine{
		config: c, files: names, requests: requests, binary: binary, jail: jail, jailer: jailer, guard: d.o.Guard,
		log: log, done: make(chan struct{}),
	}, nil
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
