package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// WaitCondition is what Wait waits for, in docker's words.
type WaitCondition string

// Conditions. WaitNextExit waits for an end that is yet to come, of a start that
// may be, too. WaitRemoved waits until the container is gone.
const (
	WaitNotRunning WaitCondition = "not-running"
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

// Wait returns a container's exit code, once the condition holds.
func (m *Manager) Wait(ctx context.Context, ref string, until WaitCondition) (int, error) {
	vm, err := m.resolve(ref)
	if err != nil {
		return 0, err
	}
	switch until {
	case WaitNotRunning:
		return m.waitEnd(ctx, vm)
	case WaitNextExit:
		return m.waitNextExit(ctx, vm)
	case WaitRemoved:
		return m.waitRemoved(ctx, vm)
	}
	return 0, fmt.Errorf("%w: condition %q of a wait", ErrInvalid, until)
}

// waitEnd waits until the container does not run.
func (m *Manager) waitEnd(ctx context.Context, vm state.VM) (int, error) {
	f, err := m.final(ctx, vm, supervisor.Command{Op: supervisor.OpWait})
	if errors.Is(err, ErrNotRunning) {
		c, err := m.Inspect(ctx, vm.ID)
		if err != nil {
			return 0, err
		}
		return c.ExitCode, nil
	}
	return f.ExitCode, err
}

func (m *Manager) waitNextExit(ctx context.Context, vm state.VM) (int, error) {
	w, err := m.state.Watch(vm.ID)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	_, last, err := m.lastExit(vm)
	if err != nil {
		return 0, err
	}
	for {
		f, err := m.final(ctx, vm, supervisor.Command{Op: supervisor.OpWait})
		if !errors.Is(err, ErrNotRunning) {
			return f.ExitCode, err
		}
		// It may have started and ended between two looks.
		code, finished, err := m.lastExit(vm)
		if err != nil || finished.After(last) {
			return code, err
		}
		if err := w.Next(ctx); err != nil {
			return 0, err
		}
	}
}

// lastExit reads how and when the container last ended.
func (m *Manager) lastExit(vm state.VM) (code int, finished time.Time, err error) {
	if m.vanished(vm.ID) {
		return 0, finished, fmt.Errorf("%w: %s", ErrNotFound, vm.Name)
	}
	st, _, err := m.status(vm)
	if err != nil || st == nil {
		return 0, finished, err
	}
	return st.ExitCode, st.FinishedAt, nil
}

func (m *Manager) waitRemoved(ctx context.Context, vm state.VM) (int, error) {
	w, err := m.state.Watch(vm.ID)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	code := 0
	for !m.vanished(vm.ID) {
		f, err := m.final(ctx, vm, supervisor.Command{Op: supervisor.OpWait})
		switch {
		case err == nil:
			code = f.ExitCode
			continue // --rm removes it before we hear of its end
		case !errors.Is(err, ErrNotRunning):
			return 0, err
		}
		if last, finished, err := m.lastExit(vm); err == nil && !finished.IsZero() {
			code = last
		}
		if err := w.Next(ctx); err != nil {
			return 0, err
		}
	}
	return code, nil
}
