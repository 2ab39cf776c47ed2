package manager

import (
	"context"
	"errors"
	"fmt"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// Pause stops all processes of a container where they are. Its VM runs on.
func (m *Manager) Pause(ctx context.Context, ref string) error {
	return m.setPaused(ctx, ref, supervisor.OpPause)
}

// Unpause lets a paused container go on.
func (m *Manager) Unpause(ctx context.Context, ref string) error {
	return m.setPaused(ctx, ref, supervisor.OpUnpause)
}

func (m *Manager) setPaused(ctx context.Context, ref string, op supervisor.Op) error {
	vm, err := m.resolve(ref)
	if err != nil {
		return err
	}
	if m.restarts(vm.ID) {
		return restarting(vm)
	}
	answer, err := m.ask(ctx, vm, supervisor.Command{Op: op})
	if err == nil && answer.Error != "" {
		err = fmt.Errorf("%w: %s container %s: %s", ErrConflict, op, vm.Name, answer.Error)
	}
	return err
}

// holdPaused pauses a container until release is called, or this process ends.
func (m *Manager) holdPaused(ctx context.Context, vm state.VM) (release func() error, err error) {
	c, err := m.dial(ctx, vm, supervisor.Command{Op: supervisor.OpPause, Hold: true})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	r, err := c.Reply()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && r.Error != "" {
		err = fmt.Errorf("%w: pause container %s: %s", ErrConflict, vm.Name, r.Error)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return func() error {
		defer c.Close()
		r, err := c.LetGo()
		if r.Error != "" {
			m.log.Debug("end the pause", "container", vm.ID, "err", r.Error)
		}
		if errors.Is(err, supervisor.ErrGone) {
			return nil // it has ended
		}
		return err
	}, nil
}

// restarts reports whether a container has ended and is about to be started
// again by its restart policy.
func (m *Manager) restarts(id string) bool {
	st, err := m.state.ReadStatus(id)
	if err != nil || st == nil || st.Phase != state.PhaseRestarting {
		return false
	}
	running, err := m.state.Running(id)
	return err == nil && running
}

// restarting says it in docker's words.
func restarting(vm state.VM) error {
	return fmt.Errorf("%w: container %s is restarting, wait until the container is running", ErrConflict, vm.Name)
}

// paused reports whether a container that runs is paused.
func (m *Manager) paused(id string) bool {
	st, err := m.state.ReadStatus(id)
	return err == nil && st != nil && st.Phase == state.PhaseRunning && st.Paused
}
