package manager

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// cleaningDriver only cleans, and says what for.
type cleaningDriver struct {
	vmm.Driver
	name    string
	cleaned *[]string
	err     error
}

func (d cleaningDriver) Name() string { return d.name }

func (d cleaningDriver) Clean(id, dir string) error {
	// What a crash left must still be there: it tells what to clean.
	if _, err := os.Stat(filepath.Join(dir, "left")); err != nil {
		return err
	}
	*d.cleaned = append(*d.cleaned, d.name+" "+id)
	return d.err
}

// plainDriver has nothing to clean.
type plainDriver struct{ vmm.Driver }

func (plainDriver) Name() string { return "plain" }

// lostContainer is one whose supervisor died.
func lostContainer(t *testing.T, m *Manager, driver string) string {
	t.Helper()
	id := state.NewID()
	c := state.Config{ID: id, Name: "n" + id[:8], Args: []string{"true"}}
	if err := m.state.Create(c, func(state.Paths) error { return nil }); err != nil {
		t.Fatal(err)
	}
	paths := m.state.Paths(id)
	if err := os.Mkdir(paths.VMM(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(paths.VMM(), "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st := state.Status{Phase: state.PhaseRunning, Driver: state.Driver{Name: driver}}
	if err := state.WriteStatus(paths, st); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestReapCleans: the next look at a container whose supervisor was killed has
// its VMM's driver, and no other one, free what is left of the VM.
func TestReapCleans(t *testing.T) {
	var cleaned []string
	broken := errors.New("broken")
	m, err := Open(t.TempDir(), Options{Drivers: []vmm.Driver{
		cleaningDriver{name: "other", cleaned: &cleaned}, plainDriver{}, cleaningDriver{name: "ours", cleaned: &cleaned},
		cleaningDriver{name: "failing", cleaned: &cleaned, err: broken},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ours, plain, failing := lostContainer(t, m, "ours"), lostContainer(t, m, "plain"), lostContainer(t, m, "failing")
	for range 2 { // once is enough
		list, err := m.List(context.Background(), ListOptions{All: true})
		if err != nil || len(list) != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, c := range list {
			switch {
			case c.ID == failing && (c.State != StateBroken || !strings.Contains(c.Problem, "clean up after failing: broken")):
				t.Errorf("%+v", c)
			case c.ID != failing && (c.State != StateExited || c.ExitCode != 137):
				t.Errorf("%+v", c)
			}
		}
	}
	want := []string{"failing " + failing, "failing " + failing, "ours " + ours}
	slices.Sort(cleaned)
	if !slices.Equal(cleaned, want) {
		t.Errorf("cleaned: %v, want %v", cleaned, want)
	}
	for _, id := range []string{ours, plain} {
		if _, err := os.Stat(m.state.Paths(id).VMM()); err == nil {
			t.Errorf("the directory of %s is left", id)
		}
	}
}

// TestReapOfOneThatMadeATemplate: what there is of it goes, whole ones stay.
func TestReapOfOneThatMadeATemplate(t *testing.T) {
	m, err := Open(t.TempDir(), Options{Drivers: []vmm.Driver{plainDriver{}}})
	if err != nil {
		t.Fatal(err)
	}
	lostContainer(t, m, "plain")
	dir := m.templateStore().Dir
	for _, name := range []string{"key.state", ".tmp-1"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".lock", ".tmp-1/state"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.List(t.Context(), ListOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[1]) != "key.state" {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestReapOfOneThatRested: it had ended before its supervisor was lost, and said so.
func TestReapOfOneThatRested(t *testing.T) {
	finished := time.Now().Add(-time.Hour).UTC()
	for name, tt := range map[string]struct {
		phase  state.Phase
		code   int
		oom    bool
		before bool // when it ended
		dies   int  // events
	}{
		"running":    {state.PhaseRunning, exitLost, false, false, 1},
		"starting":   {state.PhaseStarting, exitLost, false, false, 0},
		"restarting": {state.PhaseRestarting, 7, true, true, 0},
	} {
		m, vm, lock := lockedContainer(t)
		st := state.Status{
			Phase: tt.phase, ExitCode: 7, OOMKilled: true, FinishedAt: finished, RestartCount: 3,
			Supervisor: state.Process{PID: 1},
		}
		if err := state.WriteStatus(m.state.Paths(vm.ID), st); err != nil {
			t.Fatal(err)
		}
		lock.Unlock()
		c, err := m.Inspect(t.Context(), vm.ID)
		if err != nil {
			t.Fatal(err)
		}
		if c.State != StateExited || c.ExitCode != tt.code || c.OOMKilled != tt.oom || c.FinishedAt.Equal(finished) != tt.before ||
			c.RestartCount != 3 || c.Error != supervisorLost || c.SupervisorPID != 0 {
			t.Errorf("%s: %+v", name, c)
		}
		b, err := os.ReadFile(filepath.Join(m.state.Root(), "events", "events.jsonl"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), `"die"`); n != tt.dies {
			t.Errorf("%s: %d times die:\n%s", name, n, b)
		}
	}
}

// TestRemoveCleansWhatCannotBeRead: a damaged status hides which driver it was.
func TestRemoveCleansWhatCannotBeRead(t *testing.T) {
	var cleaned []string
	m, err := Open(t.TempDir(), Options{Drivers: []vmm.Driver{
		cleaningDriver{name: "a", cleaned: &cleaned}, cleaningDriver{name: "b", cleaned: &cleaned},
	}})
	if err != nil {
		t.Fatal(err)
	}
	id := lostContainer(t, m, "a")
	if err := os.WriteFile(m.state.Paths(id).Status(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(context.Background(), id, true); err != nil {
		t.Error(err)
	}
	if !slices.Equal(cleaned, []string{"a " + id, "b " + id}) {
		t.Errorf("cleaned: %v", cleaned)
	}
}

// TestRemoveWithoutLock: what lies in the place of a lock does not keep its
// container for ever, and what runs all the same is not removed unasked.
func TestRemoveWithoutLock(t *testing.T) {
	m, err := Open(t.TempDir(), Options{Drivers: []vmm.Driver{plainDriver{}}})
	if err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sleep.Process.Kill(); sleep.Wait() })
	stopped, runs := lostContainer(t, m, "plain"), lostContainer(t, m, "plain")
	st := state.Status{Phase: state.PhaseRunning, Driver: state.Driver{Name: "plain"}, Supervisor: state.IdentifyProcess(sleep.Process.Pid)}
	if err := state.WriteStatus(m.state.Paths(runs), st); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{stopped, runs} {
		alive := m.state.Paths(id).Alive()
		if err := os.Remove(alive); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(alive, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	if _, err := m.Start(ctx, stopped, nil); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("start: %v", err)
	}
	if err := m.Remove(ctx, stopped, false); err != nil || !m.vanished(stopped) {
		t.Errorf("rm: %v", err)
	}
	if err := m.Remove(ctx, runs, false); !errors.Is(err, ErrConflict) || m.vanished(runs) {
		t.Errorf("rm of what runs: %v", err)
	}
	if err := m.Remove(ctx, runs, true); err != nil || !m.vanished(runs) {
		t.Errorf("rm -f: %v", err)
	}
	if err := sleep.Wait(); err == nil {
		t.Error("its supervisor was not ended")
	}
}
