package supervisor

import (
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

// TestRecordLeaving is of a VM that is in a bridge network, and of one that is not:
// that one's end is not to wait for the disk.
func TestRecordLeaving(t *testing.T) {
	for mode, want := range map[string]bool{state.ModeBridge: true, state.ModeUser: false} {
		store, err := state.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		id := state.NewID()
		if err := store.Create(state.Config{ID: id, Name: "web"}, func(state.Paths) error { return nil }); err != nil {
			t.Fatal(err)
		}
		s := &supervisor{paths: store.Paths(id), status: state.Status{Phase: state.PhaseRunning, Networks: []state.Network{{Mode: mode}}}}
		s.leaveNetwork()
		st, err := store.ReadStatus(id)
		if err != nil || (st != nil) != want {
			t.Fatalf("%s: %+v, %v", mode, st, err)
		}
		if want && !st.Networks[0].Leaving {
			t.Errorf("%s: %+v", mode, st.Networks)
		}
	}
}
