package manager

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

// finds checks what Check finds, by the names of files, and that a repair mends
// all of it.
func finds(t *testing.T, m *Manager, want ...string) {
	t.Helper()
	for _, repair := range []bool{false, true} {
		found, err := m.Check(t.Context(), repair)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range found {
			names = append(names, filepath.Base(f.Subject))
			if f.Repaired != repair || !f.Repairable {
				t.Errorf("repair %v: %+v", repair, f)
			}
		}
		if slices.Sort(names); !slices.Equal(names, want) {
			t.Errorf("found %q, want %q", names, want)
		}
	}
	if found, err := m.Check(t.Context(), false); len(found) != 0 || err != nil {
		t.Errorf("after the repair: %+v, %v", found, err)
	}
}

// touch makes files of a container.
func touch(t *testing.T, p state.Paths, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(p.Dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckFindsWhatWritersLeft(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	paths := m.state.Paths(vm.ID)
	touch(t, paths, ".config.json.tmp-1", ".service.json.tmp-1", ".health.json.tmp-1", "container.log.1.gz.tmp")
	if found, err := m.Check(t.Context(), false); len(found) != 0 || err != nil {
		t.Errorf("of a container that runs: %+v, %v", found, err)
	}
	lock.Unlock()
	config, err := m.state.LockConfig(vm.ID)
	if err != nil {
		t.Fatal(err)
	}
	if left := m.state.TempConfigs(vm.ID); len(left) != 0 {
		t.Errorf("of a change that is under way: %v", left)
	}
	config.Unlock()
	finds(t, m, ".config.json.tmp-1", ".health.json.tmp-1", ".service.json.tmp-1", "container.log.1.gz.tmp")
}

// TestCheckFindsALoneRecord: a supervisor that served files was killed when all
// but its record was gone.
func TestCheckFindsALoneRecord(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	if err := state.WriteService(m.state.Paths(vm.ID), state.Status{}); err != nil {
		t.Fatal(err)
	}
	lock.Unlock()
	finds(t, m, "service.json")
}

// TestDamagedHealth: of a container whose health nobody can read all else is shown.
func TestDamagedHealth(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		t.Fatal(err)
	}
	c.Healthcheck = &state.Healthcheck{Test: []string{"CMD", "true"}}
	if err := m.state.WriteConfig(c); err != nil {
		t.Fatal(err)
	}
	touch(t, m.state.Paths(vm.ID), "health.json")
	lock.Unlock()
	got, err := m.Inspect(t.Context(), vm.ID)
	if err != nil || got.State != StateCreated || got.Health != nil {
		t.Errorf("%+v, %v", got, err)
	}
	finds(t, m, "health.json")
}
