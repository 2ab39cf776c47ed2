package manager

import (
	"testing"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// TestLostServiceIsEnded: who was served cleans up once the lock of the dead is
// free, so that no command after it has to.
func TestLostServiceIsEnded(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	paths := m.state.Paths(vm.ID)
	touch(t, paths, "token", "vsock.sock")
	if err := state.WriteService(paths, state.Status{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.endLostService(t.Context(), vm) }()
	early(t, done)
	lock.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left := supervisor.Leftovers(paths); len(left) != 0 || m.lostService(vm.ID) {
		t.Errorf("left %v, record %v", left, m.lostService(vm.ID))
	}
	l, err := m.state.Lock(vm.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if err := m.remove(vm); err != nil {
		t.Fatal(err)
	}
	if err := m.endLostService(t.Context(), vm); err != nil {
		t.Errorf("of a container that is no more: %v", err)
	}
}
