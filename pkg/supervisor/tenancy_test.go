package supervisor

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// neighbour is a supervisor of a container in the VM of another one, which is made,
// and whose record says what a test wants.
func neighbour(t *testing.T) (s *supervisor, set func(phase state.Phase, token string)) {
	t.Helper()
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	owner := state.Config{ID: state.NewID(), Name: "web"}
	if err := store.Create(owner, func(state.Paths) error { return nil }); err != nil {
		t.Fatal(err)
	}
	paths := store.Paths(owner.ID)
	s = &supervisor{store: store, plan: Plan{VMOf: &VMOwner{ID: owner.ID, Name: "web", Dir: paths.Dir}}}
	return s, func(phase state.Phase, token string) {
		t.Helper()
		err := state.RemoveToken(paths)
		if token != "" && err == nil {
			err = state.WriteToken(paths, token)
		}
		if err == nil {
			err = state.WriteStatus(paths, state.Status{Phase: phase})
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func TestOwnerToken(t *testing.T) {
	s, set := neighbour(t)
	s.goneToken = "before"
	set(state.PhaseRunning, "now")
	if _, _, err := s.ownerToken(); err == nil || !strings.HasPrefix(err.Error(), "cannot join network of a non running container: ") {
		t.Errorf("nobody holds the lock: %v", err)
	}
	lock, err := s.store.Lock(s.plan.VMOf.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	for _, tt := range []struct {
		phase  state.Phase
		token  string
		up, ok bool
	}{
		{state.PhaseRunning, "now", true, true},
		{state.PhaseRunning, "before", false, true}, // the VM that has ended
		{state.PhaseRunning, "", false, true},       // it is ending
		{state.PhaseStarting, "now", false, true},
		{state.PhaseRestarting, "", false, true},
		{state.PhaseExited, "", false, false},
	} {
		set(tt.phase, tt.token)
		token, up, err := s.ownerToken()
		if up != tt.up || (err == nil) != tt.ok || up && token != tt.token {
			t.Errorf("%+v: %q, %t, %v", tt, token, up, err)
		}
	}
}

// TestAwaitOwner: a VM on its way up is waited for, until it is up or no more.
func TestAwaitOwner(t *testing.T) {
	s, set := neighbour(t)
	lock, err := s.store.Lock(s.plan.VMOf.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	for phase, want := range map[state.Phase]string{state.PhaseRunning: "token", state.PhaseExited: ""} {
		set(state.PhaseRestarting, "")
		later := time.AfterFunc(20*time.Millisecond, func() { set(phase, "token") })
		token, err := s.awaitOwner(t.Context())
		later.Stop()
		if token != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", phase, token, err)
		}
	}
}

// TestJoinVMThatEnds: one that ends while it is being joined does not run, and
// another one may come after it.
func TestJoinVMThatEnds(t *testing.T) {
	s, set := neighbour(t)
	lock, err := s.store.Lock(s.plan.VMOf.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	s.paths, s.booting = s.store.Paths(state.NewID()), t.Context()
	s.plan.VM.VsockPath = s.paths.Vsock()
	for limit, want := range map[time.Duration]string{time.Minute: "cannot join network of a non running container: ", 20 * time.Millisecond: "reach the microVM of container web: "} {
		s.plan.Limits.Boot, s.plan.Limits.Kill, s.goneToken = time.Minute, limit, ""
		set(state.PhaseRunning, "token") // and no socket
		later := time.AfterFunc(50*time.Millisecond, func() { set(state.PhaseExited, "") })
		if err := s.joinVM(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("within %v: %v", limit, err)
		}
		later.Stop()
	}
}

// TestLinkVM: what stands for the VM's socket is a link, and only that is removed.
func TestLinkVM(t *testing.T) {
	s, _ := neighbour(t)
	s.paths = s.store.Paths(state.NewID())
	if err := os.Mkdir(s.paths.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	target := state.Paths{Dir: s.plan.VMOf.Dir}.Vsock()
	if err := os.WriteFile(target, []byte("socket"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.plan.Setup.Token = "token"
	for range 2 {
		if err := s.linkVM(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(s.paths.Vsock()); err != nil || string(b) != "socket" {
		t.Errorf("%q, %v", b, err)
	}
	if token, err := state.ReadToken(s.paths); err != nil || token != "token" {
		t.Errorf("%q, %v", token, err)
	}
	if err := RemoveLeftovers(s.paths); err != nil {
		t.Fatal(err)
	}
	if left := Leftovers(s.paths); len(left) > 0 {
		t.Error(left)
	}
	if _, err := os.Stat(target); err != nil {
		t.Errorf("the VM's own socket: %v", err)
	}
}
