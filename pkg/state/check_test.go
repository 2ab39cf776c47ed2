package state

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// found is a check as text: kind, the name of the subject and the remedy.
func found(t *testing.T, s *Store) string {
	t.Helper()
	list, err := s.Check()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range list {
		lines = append(lines, string(f.Kind)+" "+filepath.Base(f.Subject)+": "+f.Remedy)
	}
	return strings.Join(lines, "\n")
}

func repair(t *testing.T, s *Store) {
	t.Helper()
	list, err := s.Check()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if err := f.Repair(context.Background()); err != nil {
			t.Errorf("%s: %v", f.Subject, err)
		}
	}
}

func TestCheckFindsWhatCrashesLeft(t *testing.T) {
	id := strings.Repeat("ab", 32)
	tests := []struct {
		name string
		make func(t *testing.T, s *Store)
		want string
	}{
		{"nothing", func(*testing.T, *Store) {}, ""},
		{"a container", func(t *testing.T, s *Store) { create(t, s, "one") }, ""},
		{"half made", func(t *testing.T, s *Store) { mkdir(t, s, ".new-"+id) }, "directory .new-" + id + ": remove it"},
		{"half removed", func(t *testing.T, s *Store) { mkdir(t, s, ".gone-"+id) }, "directory .gone-" + id + ": remove it"},
		{"no entry", func(t *testing.T, s *Store) {
			create(t, s, "one")
			mkdir(t, s, id)
		}, "directory " + id + ": remove it"},
		{"in the making", func(t *testing.T, s *Store) {
			l, err := s.begin(filepath.Join(s.root, dirVMs, newPrefix+id))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Unlock() })
		}, ""},
		{"no directory", func(t *testing.T, s *Store) {
			if err := os.RemoveAll(s.Paths(create(t, s, "one")).Dir); err != nil {
				t.Fatal(err)
			}
		}, "record container one: remove its record"},
		{"damaged database", func(t *testing.T, s *Store) {
			create(t, s, "one")
			write(t, s.dbPath(), "{")
		}, "record vms.json: rebuild it from the containers' own records"},
		{"lost database", func(t *testing.T, s *Store) {
			create(t, s, "one")
			if err := os.Remove(s.dbPath()); err != nil {
				t.Fatal(err)
			}
		}, "record vms.json: rebuild it from the containers' own records"},
		{"a write", func(t *testing.T, s *Store) { write(t, filepath.Join(s.root, ".vms.json.tmp-1"), "x") },
			"file .vms.json.tmp-1: remove it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			tt.make(t, s)
			before, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			if got := found(t, s); got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
			repair(t, s)
			if got := found(t, s); got != "" {
				t.Errorf("after the repair: %q", got)
			}
			after, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			if tt.name != "no directory" && len(after) != len(before) {
				t.Errorf("%d containers after the repair, %d before", len(after), len(before))
			}
		})
	}
}

// TestCheckRefusesNewer leaves alone what a newer version wrote.
func TestCheckRefusesNewer(t *testing.T) {
	s := newStore(t)
	write(t, s.dbPath(), `{"version": 99}`)
	if list, err := s.Check(); err == nil {
		t.Errorf("found %v in a file of a newer version", list)
	}
}

func TestRemoveUnlocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := RemoveUnlocked(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("removed while it was locked: %v", err)
	}
	l.Unlock()
	for range 2 {
		if err := RemoveUnlocked(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !missing(err) {
		t.Errorf("still there: %v", err)
	}
}

func mkdir(t *testing.T, s *Store, name string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(s.root, dirVMs, name), 0o700); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
