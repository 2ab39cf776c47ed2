package manager

import (
	"errors"
	"fmt"
	"strings"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
)

// Rename gives a container another name, whether it runs or not.
func (m *Manager) Rename(ref, name string) error {
	vm, err := m.resolve(ref)
	if err != nil {
		return err
	}
	name = strings.TrimPrefix(name, "/")
	if err := state.CheckName(name); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if name == vm.Name {
		return fmt.Errorf("%w: renaming a container with the same name as its current name", ErrInvalid)
	}
	err = m.state.Rename(vm.ID, name)
	if errors.Is(err, state.ErrNameTaken) {
		return nameTaken(name)
	}
	if err == nil {
		old := vm.Name
		vm.Name = name
		m.tellContainer(events.ActionRename, vm, "oldName", "/"+old)
	}
	return err
}
