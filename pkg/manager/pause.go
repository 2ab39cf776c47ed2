package manager

import (
	"context"
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
	answer, err := m.ask(ctx, vm, supervisor.Command{Op: op})
	if err == nil && answer != "" {
		err = fmt.Errorf("%w: %s container %s: %s", ErrConflict, op, vm.Name, answer)
	}
	return err
}

// paused reports whether a container that runs is paused.
func (m *Manager) paused(id string) bool {
	st, err := m.state.ReadStatus(id)
	return err == nil && st != nil && st.Phase == state.PhaseRunning && st.Paused
}
