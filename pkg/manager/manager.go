package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
	"github.com/micropod/micropod/pkg/vmm"
)

// Names in a root that belong to the manager.
const (
	dirImages  = "images"
	dirRootfs  = "rootfs"
	dirKernels = "kernels"
	dirHosts   = "certs.d"
	fileKernel = "vmlinux"

	fileCACerts = "ca-certificates.pem" // the user's: read, never written
)

// AgentFile is a file of the guest agent in the initramfs.
type AgentFile struct {
	// Name in the initramfs, without a leading slash; "init" is the agent itself.
	Name string
	Mode fs.FileMode
	Size int64 // bytes
	Open func() (io.ReadCloser, error)
	// Stamp differs whenever the content may, for what is made of it: to read a
	// file for every VM would cost more than the rest of a start on the host.
	Stamp string
}

// Agent finds the guest agent.
type Agent func() ([]AgentFile, error)

// Options are what the manager is wired to.
type Options struct {
	// Drivers in order of preference.
	Drivers []vmm.Driver
	Agent   Agent
	// Supervisor is the command that becomes a VM's supervisor; the
	// container's id is appended.
	Supervisor []string
	// Images configures the access to registries.
	Images image.Options
	Log    *slog.Logger
	// Warn is told what a user must know before a VM runs; nil is nobody.
	Warn func(message string)
	// JournalSocket is where journald listens; "" is the system's.
	JournalSocket string
	// Debug makes supervisors write detailed logs.
	Debug bool
	// NoTemplates makes every emulated VM boot its kernel anew.
	NoTemplates bool
}

// Manager is the engine over one root directory. It holds no state of its own:
// any number of Managers may use one root. Safe for concurrent use.
type Manager struct {
	o       Options
	log     *slog.Logger
	state   *state.Store
	images  *image.Store
	disks   *rootfs.Store
	journal *events.Journal
}

// Open prepares the root directory, which is made when missing.
func Open(root string, o Options) (*Manager, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	st, err := state.Open(root)
	if err != nil {
		return nil, err
	}
	disks, err := rootfs.Open(filepath.Join(root, dirRootfs), rootfs.Options{Log: o.Log})
	if err != nil {
		return nil, err
	}
	journal, err := events.Open(root)
	if err != nil {
		return nil, err
	}
	m := &Manager{o: o, log: o.Log, state: st, disks: disks, journal: journal}
	o.Images.Log, o.Images.HostsDir = o.Log, filepath.Join(root, dirHosts)
	if m.images, err = image.Open(filepath.Join(root, dirImages), layers{m}, o.Images); err != nil {
		return nil, err
	}
	return m, nil
}

// StartError is returned by Start when the container's process could not be
// started. The container exists and has ended.
type StartError struct {
	ExitCode int    // 125, 126 or 127, as docker
	Phase    string // where it happened
	Err      error
}

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// resolve finds a container and cleans up after a supervisor that was lost.
func (m *Manager) resolve(ref string) (state.VM, error) {
	vm, err := m.state.Resolve(ref)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return vm, fmt.Errorf("%w: %s", ErrNotFound, ref)
	case errors.Is(err, state.ErrAmbiguous):
		return vm, fmt.Errorf("%w: %s", ErrAmbiguous, ref)
	}
	return vm, err
}

// dial connects to a container's supervisor; the error wraps ErrNotRunning if
// it has none. A container on its way up or down is waited for; one whose files
// are served does not run, however long that takes.
func (m *Manager) dial(ctx context.Context, vm state.VM, cmd supervisor.Command) (*supervisor.Client, error) {
	for {
		c, err := supervisor.Dial(ctx, m.state.Paths(vm.ID), cmd)
		if !errors.Is(err, supervisor.ErrGone) {
			return c, err
		}
		held, err := m.state.Running(vm.ID)
		if err != nil {
			return nil, err
		}
		if !held || m.served(vm.ID) {
			return nil, notRunning(vm)
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// lock takes a container's lock. The error wraps state.ErrLocked if it runs: a
// supervisor holds the lock, and one can speak with it. A VM that serves the
// container's files is waited for.
func (m *Manager) lock(ctx context.Context, vm state.VM) (*state.FileLock, error) {
	return m.lockAfter(ctx, vm, func(string) error { return nil })
}

// lockAfter is lock, but calls free with the container's id before each look at a
// lock that nobody answers for.
func (m *Manager) lockAfter(ctx context.Context, vm state.VM, free func(id string) error) (*state.FileLock, error) {
	for {
		if err := free(vm.ID); err != nil {
			return nil, err
		}
		l, err := m.state.Lock(vm.ID)
		if !errors.Is(err, state.ErrLocked) {
			return l, err
		}
		c, gone := m.dial(ctx, vm, supervisor.Command{Op: supervisor.OpWait})
		if gone == nil {
			c.Close()
			return nil, err
		}
		if !errors.Is(gone, ErrNotRunning) {
			return nil, gone
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// statePoll is how often a container that is neither running nor stopped is
// looked at: no event tells of both a lock that is given up and a new socket.
const statePoll = 10 * time.Millisecond

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(statePoll):
		return nil
	}
}

// notRunning says it in docker's words.
func notRunning(vm state.VM) error { return &notRunningError{name: vm.Name} }

type notRunningError struct{ name string }

func (e *notRunningError) Error() string   { return fmt.Sprintf("container %s is not running", e.name) }
func (e *notRunningError) Is(t error) bool { return t == ErrNotRunning }

// timed logs how long a step took and keeps it for the record.
func (m *Manager) timed(ts *[]state.Timing, name string, begun time.Time) {
	d := time.Since(begun)
	*ts = append(*ts, state.Timing{Name: name, Duration: d})
	m.log.Debug("phase done", "phase", name, "duration", d)
}
