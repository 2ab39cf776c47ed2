package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// wantFound demands that a check finds just these.
func wantFound(t *testing.T, s *Store, want ...string) {
	t.Helper()
	found, err := s.Check()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, f.Subject)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// TestCheckOfPartials: a part of a download is for the next pull, until it is old.
func TestCheckOfPartials(t *testing.T) {
	s, _ := newStore(t, fast())
	path := func(name string) string { return filepath.Join(s.dir, dirPartial, name) }
	for _, name := range []string{"fresh", "held", "old"} {
		if err := os.WriteFile(path(name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * partialLife)
	for _, name := range []string{"held", "old"} {
		if err := os.Chtimes(path(name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	l, err := state.TryLock(path("held"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	wantFound(t, s, path("old"))
	found, err := s.Check()
	if err != nil {
		t.Fatal(err)
	}
	if err := found[0].Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s)
	for _, name := range []string{"fresh", "held"} {
		if _, err := os.Stat(path(name)); err != nil {
			t.Error(err)
		}
	}
}

// TestCheckOfDamage: an image that has lost its config is named, for a person,
// and nothing is called garbage beside it.
func TestCheckOfDamage(t *testing.T) {
	s, _ := storeWith(t, map[string]*testImage{"a:1": simple(t, 1)})
	id := mustGet(t, s, "a:1").ID
	if err := os.Remove(s.contentPath(id)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, dirTmp, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "image a:1")
	found, err := s.Check()
	if err != nil || found[0].Repair != nil {
		t.Errorf("a lost config can be repaired by nobody: %v, %v", found, err)
	}
}
