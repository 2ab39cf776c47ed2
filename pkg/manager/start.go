package manager

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

// consoleLimit bounds the file of a guest's serial console, in bytes.
const consoleLimit = 1 << 20

// Start boots a container's VM and returns when its process runs. With streams
// the caller is attached from the first byte on and gets the Attachment;
// without, the Attachment is nil. Starting a running container does nothing
// but attach. An error of the container itself is a *StartError.
func (m *Manager) Start(ctx context.Context, ref string, s *Streams) (*Attachment, error) {
	vm, err := m.resolve(ref)
	if err != nil {
		return nil, err
	}
	lock, err := m.lock(ctx, vm)
	if errors.Is(err, state.ErrLocked) {
		if m.paused(vm.ID) {
			return nil, fmt.Errorf("%w: cannot start a paused container, try unpause instead", ErrConflict)
		}
		return m.attachRunning(ctx, vm, s)
	}
	if err != nil {
		return nil, err
	}
	defer lock.Unlock() // the supervisor holds it on
	failpoint.Here(failpoint.StartLocked)
	if err := m.reap(vm); err != nil {
		return nil, err
	}
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return nil, err
	}
	plan, err := m.plan(ctx, c)
	if err != nil {
		m.releaseDefault(c)
		if c.AutoRemove {
			err = errors.Join(err, m.remove(vm))
		}
		return nil, &StartError{ExitCode: 125, Phase: "prepare", Err: err}
	}
	failpoint.Here(failpoint.StartPlanned)
	if s != nil {
		m.tellContainer(events.ActionAttach, vm)
	}
	a, err := m.spawn(ctx, plan, lock, c, s)
	if err != nil {
		m.releaseDefault(c)
	}
	var failed *StartError
	if errors.As(err, &failed) && failed.Phase == phaseSupervisor {
		// It died without a word. Nobody else knows what it had.
		return nil, errors.Join(err, m.tidyLocked(vm))
	}
	return a, err
}

// phaseSupervisor of a StartError: no supervisor has reported.
const phaseSupervisor = "supervisor"

// spawn hands a plan to a new supervisor and waits for the process to start.
func (m *Manager) spawn(ctx context.Context, plan supervisor.Plan, lock *state.FileLock, c *state.Config, s *Streams) (*Attachment, error) {
	argv := append(append([]string{}, m.o.Supervisor...), c.ID)
	begun := time.Now()
	if s == nil {
		o, err := supervisor.Spawn(ctx, argv, plan, lock, nil)
		return nil, m.outcome(o, err, begun)
	}
	client, theirs, err := attachedPair(c, s)
	if err != nil {
		return nil, err
	}
	a := m.attach(client, c.ID, c.TTY, s)
	o, err := supervisor.Spawn(ctx, argv, plan, lock, theirs)
	theirs.Close()
	if err := m.outcome(o, err, begun); err != nil {
		a.abandon()
		return nil, err
	}
	return a, nil
}

// outcome turns what the supervisor reported into an error of Start.
func (m *Manager) outcome(o supervisor.Outcome, err error, begun time.Time) error {
	failpoint.Here(failpoint.StartReported)
	if err != nil {
		return &StartError{ExitCode: 125, Phase: phaseSupervisor, Err: err}
	}
	for _, t := range o.Timings {
		m.log.Debug("phase", "name", t.Name, "duration", t.Duration)
	}
	m.log.Debug("phase done", "phase", "supervisor", "duration", time.Since(begun))
	if !o.OK {
		return &StartError{ExitCode: o.ExitCode, Phase: o.Phase, Err: startError(o)}
	}
	return nil
}

// startError names the phase, unless it is the command itself that is wrong.
func startError(o supervisor.Outcome) error {
	if o.ExitCode == 126 || o.ExitCode == 127 {
		return errors.New(o.Error)
	}
	return fmt.Errorf("%s: %s", o.Phase, o.Error)
}

// plan prepares everything that a supervisor needs to run a container.
func (m *Manager) plan(ctx context.Context, c *state.Config) (supervisor.Plan, error) {
	if shares(c.HostConfig) {
		return m.sharePlan(ctx, c)
	}
	p, k, err := m.bootPlan(ctx, c)
	if err != nil {
		return p, err
	}
	if p.Driver.Accel == vmm.AccelTCG {
		m.o.Warn("this VM is emulated, not isolated by hardware: emulation is no security boundary (micropod doctor says why)")
	}
	if err := limitDisks(p.VM.Disks, c.HostConfig); err != nil {
		return p, err
	}
	if p.NICs, err = m.networkPlan(c, k); err != nil {
		return p, err
	}
	p.VM.NICs, p.Setup.NICs = nics(p.NICs)
	if p.Start, err = startRequest(c, k.Release, p.NICs, network.HostResolver()); err != nil {
		return p, err
	}
	m.planLife(&p, c)
	return p, nil
}

// planLife plans what is not about the VM.
func (m *Manager) planLife(p *supervisor.Plan, c *state.Config) {
	p.AutoRemove, p.Restart = c.AutoRemove, c.HostConfig.RestartPolicy
	p.StopSignal, p.StopTimeout = c.StopSignal, stopTimeout(c)
	p.Log, p.Health = m.logSpec(c), healthPlan(c)
}

// bootPlan prepares a VM with a container's disks, in which nothing is started:
// the VMM, the kernel with its initramfs, the disks.
func (m *Manager) bootPlan(ctx context.Context, c *state.Config) (supervisor.Plan, *kernel.Kernel, error) {
	var ts []state.Timing
	begun := time.Now()
	driver, err := m.choose(ctx, c.VMM)
	if err != nil {
		return supervisor.Plan{}, nil, err
	}
	m.timed(&ts, "choose VMM", begun)

	begun = time.Now()
	k, err := m.kernel(c.Kernel)
	if err != nil {
		return supervisor.Plan{}, nil, err
	}
	initrd, err := m.initramfs(k)
	if err != nil {
		return supervisor.Plan{}, nil, err
	}
	m.timed(&ts, "kernel", begun)

	begun = time.Now()
	img, err := m.disks.EnsureImage(ctx, c.DiffIDs, diskFormat(k))
	if err != nil {
		return supervisor.Plan{}, nil, fmt.Errorf("prepare disks of %s: %w", c.Image, err)
	}
	m.timed(&ts, "disks", begun)

	paths := m.state.Paths(c.ID)
	disks, root := layout(img, paths.Disk())
	token, entropy := supervisor.Secrets()
	return supervisor.Plan{
		ID: c.ID, Dir: paths.Dir, Driver: driver,
		VM: vmm.Config{
			ID: c.ID, Kernel: k.Path, Initrd: initrd, CPUs: c.CPUs, MemoryMiB: c.MemoryMiB,
			Disks: disks, VsockPath: paths.Vsock(), Dir: paths.VMM(),
			ConsolePath: paths.Console(), ConsoleLimit: consoleLimit, Templates: m.templates(k),
		},
		Setup:   api.SetupRequest{Token: token, Entropy: entropy, Root: root, Sysctls: sysctls()},
		Limits:  supervisor.DefaultLimits(),
		Timings: ts,
		Debug:   m.o.Debug,
	}, k, nil
}

const dirTemplates = "templates"

// templateStore is where all drivers keep the states of booted guests.
func (m *Manager) templateStore() template.Store {
	return template.Store{Dir: filepath.Join(m.state.Root(), dirTemplates)}
}

// templates is the directory of templateStore, "" for a kernel that looks at its
// disks before the agent says so.
func (m *Manager) templates(k *kernel.Kernel) string {
	if m.o.NoTemplates || k.Support(kernel.VirtioBlk) != kernel.ViaModule {
		return ""
	}
	return m.templateStore().Dir
}

func stopTimeout(c *state.Config) time.Duration {
	if c.StopTimeout != nil {
		return *c.StopTimeout
	}
	return defaultStop
}

// layout puts the image's disks first and the writable one behind them, and
// says under which names the guest finds them. Pure.
func layout(img rootfs.Image, writable string) ([]vmm.Disk, api.Root) {
	var disks []vmm.Disk
	root := api.Root{Format: string(img.Format)}
	for _, path := range img.Disks {
		root.Devices = append(root.Devices, device(len(disks)))
		disks = append(disks, vmm.Disk{Path: path, ReadOnly: true})
	}
	root.Writable = device(len(disks))
	return append(disks, vmm.Disk{Path: writable}), root
}

// device names the i-th disk of a guest; there are never more than 26.
func device(i int) string { return "/dev/vd" + string(rune('a'+i)) }

// kernel opens a guest kernel; "" is the root's own.
func (m *Manager) kernel(path string) (*kernel.Kernel, error) {
	if path == "" {
		path = filepath.Join(m.state.Root(), fileKernel)
	}
	return kernel.Open(path, filepath.Join(m.state.Root(), dirKernels))
}

// diskFormat is what a kernel can mount: EROFS, else ext4.
func diskFormat(k *kernel.Kernel) rootfs.Format {
	if k.Support(kernel.EROFS) != kernel.Missing {
		return rootfs.EROFS
	}
	return rootfs.Ext4
}
