package manager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// serviceMemory bounds the memory of a VM that only serves files, in MiB.
const serviceMemory = 256

// startService boots a VM with the disks of a container that does not run, to
// serve its files, and hands the container's lock to it. Its own console has a
// place of its own: that of the container tells of its last run.
func (m *Manager) startService(ctx context.Context, lock *state.FileLock, vm state.VM) (supervisor.Service, error) {
	var none supervisor.Service
	id := vm.ID
	if err := m.reap(vm); err != nil {
		return none, err
	}
	c, err := m.state.ReadConfig(id)
	if err != nil {
		return none, err
	}
	plan, _, err := m.bootPlan(ctx, c)
	if err != nil {
		return none, err
	}
	plan.Service = true
	plan.VM.CPUs, plan.VM.MemoryMiB = 1, serviceMemory
	if !shares(c.HostConfig) { // else that is no VM's
		plan.VM.MemoryMiB = min(c.MemoryMiB, serviceMemory)
	}
	plan.VM.ConsolePath = filepath.Join(plan.VM.Dir, "console.log")
	conn, theirs, err := socketPair()
	if err != nil {
		return none, err
	}
	defer theirs.Close()
	argv := append(append([]string{}, m.o.Supervisor...), id)
	o, err := supervisor.Spawn(ctx, argv, plan, lock, theirs)
	switch {
	case err != nil: // it was killed, and did not clean up
		err = errors.Join(err, m.reapService(id))
	case !o.OK:
		err = startError(o)
	}
	if err != nil {
		conn.Close()
		return none, fmt.Errorf("boot a VM to reach the files: %w", err)
	}
	return supervisor.NewService(conn), nil
}

func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "attached"), os.NewFile(uintptr(fds[1]), "attached")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// lostService reports whether the record of a VM that served files is left. The
// caller has found the container's lock free.
func (m *Manager) lostService(id string) bool {
	_, err := os.Stat(m.state.Paths(id).Service())
	return err == nil
}

// reapService cleans up after a supervisor that served files and ended without
// doing so. The caller holds the container's lock.
func (m *Manager) reapService(id string) error {
	st, err := m.state.ReadService(id)
	if errors.Is(err, state.ErrDamaged) { // of the VMM we know then that it died with it
		st, err = &state.Status{}, nil
	}
	if err != nil || st == nil {
		return err
	}
	if err := m.reapVM(id, st); err != nil {
		return err
	}
	m.log.Info("cleaned up after a supervisor that was lost", "container", id)
	return state.RemoveService(m.state.Paths(id))
}

// endLostService cleans up after a supervisor that has hung up without a word. The
// kernel closes the connections of a process that was killed before it gives its
// locks up: the next command could still take it for one that lives.
func (m *Manager) endLostService(ctx context.Context, vm state.VM) error {
	lock, err := m.lock(ctx, vm)
	if errors.Is(err, state.ErrLocked) || errors.Is(err, state.ErrNotFound) {
		return nil // who started or removed it since has cleaned up
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return m.reapService(vm.ID)
}

// served reports whether a VM that serves a container's files lives, in the place
// of one in which it runs.
func (m *Manager) served(id string) bool {
	st, err := m.state.ReadService(id)
	return err == nil && st != nil && st.Supervisor.Alive()
}

// endService ends the supervisor of a VM that serves files, if there is one.
func (m *Manager) endService(id string) error {
	st, err := m.state.ReadService(id)
	if err != nil || st == nil {
		return nil // one that cannot be read is for reap
	}
	return st.Supervisor.Kill()
}
