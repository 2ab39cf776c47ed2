package manager

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// Stop ends a container: its stop signal (or sig, by name), its grace period
// (or timeout, negative for ever), then SIGKILL, then the end of its VM. It
// returns when everything is freed; one that does not run is left as it is.
func (m *Manager) Stop(ctx context.Context, ref string, timeout *time.Duration, sig string) error {
	return m.stop(ctx, ref, supervisor.Command{Op: supervisor.OpStop, Timeout: timeout}, sig)
}

func (m *Manager) stop(ctx context.Context, ref string, cmd supervisor.Command, sig string) error {
	vm, err := m.resolve(ref)
	if err != nil {
		return err
	}
	if sig != "" {
		if cmd.Signal, err = stopSignal(sig); err != nil {
			return err
		}
	}
	to := m.subject(vm) // it may be gone with its end
	_, err = m.final(ctx, vm, cmd)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err == nil {
		m.tell(events.Container(events.ActionStop, to))
	}
	return err
}

// final sends a command and waits for the end of the container.
func (m *Manager) final(ctx context.Context, vm state.VM, cmd supervisor.Command) (supervisor.Final, error) {
	c, err := m.dial(ctx, vm, cmd)
	if err != nil {
		return supervisor.Final{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	failpoint.Here(failpoint.StopSent)
	f, err := c.Final(nil)
	failpoint.Here(failpoint.StopEnded)
	if ctx.Err() != nil {
		return f, ctx.Err()
	}
	if errors.Is(err, supervisor.ErrGone) && m.runsOn(vm.ID) {
		return f, fmt.Errorf("the supervisor of %s is busy: try again", vm.Name)
	}
	if errors.Is(err, supervisor.ErrGone) {
		// It ended between our words, or was lost: its record knows.
		code, lost := m.afterLoss(vm.ID)
		f := supervisor.Final{ExitCode: code}
		if lost != nil {
			f.Error = lost.Error()
		}
		return f, nil
	}
	return f, err
}

// killedGrace is for the end of a supervisor that has hung up. Its memory is freed
// first, and on a busy host it waits for its turn to do that.
const killedGrace = 10 * time.Second

// runsOn reports whether a supervisor that has hung up lives. The kernel closes the
// connections of one that was killed before it gives its locks up.
func (m *Manager) runsOn(id string) bool {
	held, _ := m.state.Running(id)
	st, err := m.state.ReadStatus(id)
	if !held || err != nil || st == nil || !st.Supervisor.EndsWithin(killedGrace) {
		return held
	}
	held, _ = m.state.Running(id)
	return held
}

// Kill sends a signal to a container's process. SIGKILL ends the VM if the
// guest does not obey, and returns when everything is freed, as docker does.
func (m *Manager) Kill(ctx context.Context, ref string, sig syscall.Signal) error {
	vm, err := m.resolve(ref)
	if err != nil {
		return err
	}
	if sig == syscall.SIGKILL {
		_, err := m.final(ctx, vm, supervisor.Command{Op: supervisor.OpStop, Signal: int(sig)})
		return err
	}
	return m.signal(ctx, vm, int(sig))
}

func (m *Manager) signal(ctx context.Context, vm state.VM, sig int) error {
	answer, err := m.ask(ctx, vm, supervisor.Command{Op: supervisor.OpSignal, Signal: sig})
	if err == nil && answer.Error != "" {
		err = fmt.Errorf("signal %s: %s", vm.Name, answer.Error)
	}
	return err
}

// ask sends a command that is answered at once; the answer says what is wrong.
func (m *Manager) ask(ctx context.Context, vm state.VM, cmd supervisor.Command) (answer supervisor.Reply, err error) {
	c, err := m.dial(ctx, vm, cmd)
	if err != nil {
		return answer, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	r, err := c.Reply()
	if ctx.Err() != nil {
		return answer, ctx.Err()
	}
	if errors.Is(err, supervisor.ErrGone) {
		err = notRunning(vm)
	}
	return r, err
}

// Restart stops a container and starts it again, detached. One that is to be
// removed at its end stays.
func (m *Manager) Restart(ctx context.Context, ref string, timeout *time.Duration, sig string) error {
	cmd := supervisor.Command{Op: supervisor.OpStop, Timeout: timeout, Keep: true}
	if err := m.stop(ctx, ref, cmd, sig); err != nil {
		return err
	}
	_, err := m.Start(ctx, ref, nil)
	if vm, gone := m.resolve(ref); err == nil && gone == nil {
		m.tellContainer(events.ActionRestart, vm)
	}
	return err
}

// remove deletes a container whose lock the caller holds.
func (m *Manager) remove(vm state.VM) error {
	to := m.subject(vm)
	err := m.state.Remove(vm.ID)
	if err == nil {
		m.tell(events.Container(events.ActionDestroy, to))
	}
	return err
}

// Remove deletes a container and its disk. One that runs is ended first with
// force, and refused without.
func (m *Manager) Remove(ctx context.Context, ref string, force bool) error {
	vm, err := m.resolve(ref)
	if err != nil {
		return err
	}
	take := m.lock
	if force {
		take = func(ctx context.Context, vm state.VM) (*state.FileLock, error) {
			return m.lockAfter(ctx, vm, m.endService) // of everyone who was faster
		}
	}
	lock, err := take(ctx, vm)
	for errors.Is(err, state.ErrLocked) && force { // again, if somebody starts it meanwhile
		if err := m.Kill(ctx, vm.ID, syscall.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) && !errors.Is(err, ErrNotFound) {
			return err
		}
		failpoint.Here(failpoint.RemoveKilled)
		if m.vanished(vm.ID) { // --rm was faster
			return nil
		}
		lock, err = take(ctx, vm)
	}
	return m.removeTaken(vm, lock, err, force)
}

// removeTaken removes a container whose lock was taken, or could not be.
func (m *Manager) removeTaken(vm state.VM, lock *state.FileLock, err error, force bool) error {
	switch {
	case errors.Is(err, state.ErrLocked) && m.paused(vm.ID):
		return fmt.Errorf("%w: container %s is paused and must be unpaused first, or remove it with -f", ErrConflict, vm.Name)
	case errors.Is(err, state.ErrLocked) && m.restarts(vm.ID):
		return fmt.Errorf("%w: container %s is restarting: stop it first, or remove it with -f", ErrConflict, vm.Name)
	case errors.Is(err, state.ErrLocked):
		return fmt.Errorf("%w: container %s is running: stop it first, or remove it with -f", ErrConflict, vm.Name)
	case errors.Is(err, state.ErrNotFound):
		return m.remove(vm) // an entry without a directory
	case errors.Is(err, state.ErrDamaged):
		return m.removeWithoutLock(vm, force)
	case err != nil:
		return err
	}
	defer lock.Unlock()
	failpoint.Here(failpoint.RemoveLocked)
	return m.removeStopped(vm)
}

// removeStopped removes a container that does not run.
func (m *Manager) removeStopped(vm state.VM) error {
	// A status that cannot be read, or not be written for want of room, must not
	// keep its container for ever.
	err := m.reap(vm)
	if errors.Is(err, state.ErrDamaged) {
		err = m.clean(vm.ID, "")
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return m.remove(vm)
}

// removeWithoutLock removes a container in whose lock's place is something that
// cannot be locked. The recorded processes tell in its place whether it runs.
func (m *Manager) removeWithoutLock(vm state.VM, force bool) error {
	st, err := m.state.ReadStatus(vm.ID)
	if err != nil || !lost(st) {
		return m.removeStopped(vm)
	}
	if !force && (st.Supervisor.Alive() || st.VMM.Alive()) {
		return fmt.Errorf("%w: container %s may be running: remove it with -f", ErrConflict, vm.Name)
	}
	if err := st.Supervisor.Kill(); err != nil {
		return err
	}
	return m.removeStopped(vm)
}
