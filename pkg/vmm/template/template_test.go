package template

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "templates")}
	made := 0
	makeIt := func(dir string) error {
		made++
		return os.WriteFile(filepath.Join(dir, "file"), []byte("state"), 0o400)
	}
	for i, want := range []string{"", "state", "state"} {
		dir, err := s.Open("key", makeIt)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "file"))
		if string(got) != want || dir != "" && err != nil {
			t.Errorf("start %d: %q, %v, want %q", i+1, got, err, want)
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
	s.Judge("key", true)
	info, err := os.Stat(s.path("key", suffixState))
	if err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	s.Judge("key", false) // of a guest that does nothing
	if dir, err := s.Open("key", makeIt); err != nil || dir == "" || made != 2 {
		t.Errorf("after a bad one: %q, %v, made %d times", dir, err, made)
	}
	s.empty(t)
}

// empty looks for what is temporary.
func (s Store) empty(t *testing.T) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(s.Dir, tempPrefix+"*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestThatCannotBeMade(t *testing.T) {
	for _, test := range []struct {
		err   error
		tries int
	}{
		{errors.New("no"), 1},
		{context.Canceled, 2}, // says nothing of the template
	} {
		s := Store{t.TempDir()}
		tries := 0
		for range 4 {
			_, err := s.Open("key", func(string) error {
				if tries++; tries == 2 {
					return nil
				}
				return test.err
			})
			if err != nil && !errors.Is(err, test.err) {
				t.Error(err)
			}
		}
		if tries != test.tries {
			t.Errorf("%v: %d tries, want %d", test.err, tries, test.tries)
		}
		s.empty(t)
	}
}

// A failure counts for an hour: what made it may have passed.
func TestFailureThatPasses(t *testing.T) {
	full := errors.New("no space left")
	s := Store{t.TempDir()}
	tries := 0
	open := func(want int, outcome error) {
		t.Helper()
		dir, err := s.Open("key", func(string) error {
			tries++
			return outcome
		})
		if tries != want {
			t.Errorf("%d tries, want %d", tries, want)
		}
		if err != nil && !errors.Is(err, full) || (dir != "") != (outcome == nil) {
			t.Errorf("%q, %v", dir, err)
		}
	}
	dated := func(age time.Duration) {
		t.Helper()
		at := time.Now().Add(-age)
		if err := os.Chtimes(s.path("key", suffixFailed), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.mark("key", suffixSeen); err != nil {
		t.Fatal(err)
	}
	open(1, full)
	open(1, full)
	dated(failureCounts / 2)
	open(1, full)
	dated(failureCounts + time.Minute)
	open(2, full) // and the mark is a new one
	open(2, full)
	dated(-failureCounts / 2) // the clock has been set back
	open(3, full)
	dated(failureCounts + time.Minute)
	open(4, nil)
	open(4, nil)
	if s.failed("key") {
		t.Error("the failure still counts")
	}
	s.empty(t)
}

// On a disk that is full not each start tries: what was written makes room for the
// mark.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	s := Store{t.TempDir()}
	if err := unix.Mount("tmpfs", s.Dir, "tmpfs", 0, "nr_inodes=20"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(s.Dir, 0) })
	tries := 0
	fill := func(dir string) error {
		tries++
		for {
			f, err := os.CreateTemp(dir, "")
			if err != nil {
				return err
			}
			f.Close()
		}
	}
	for range 3 {
		if _, err := s.Open("key", fill); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Error(err)
		}
	}
	if tries != 1 {
		t.Errorf("%d tries, want 1", tries)
	}
	s.empty(t)
}

// A start does not wait for another one's template.
func TestInTheMaking(t *testing.T) {
	s := Store{t.TempDir()}
	if err := s.mark("key", suffixSeen); err != nil {
		t.Fatal(err)
	}
	dir, err := s.Open("key", func(string) error {
		if dir, err := s.Open("key", nil); dir != "" || err != nil {
			t.Errorf("the other: %q, %v", dir, err)
		}
		return nil
	})
	if err != nil || dir == "" {
		t.Fatalf("%q, %v", dir, err)
	}
}

// Who looked for a template just before another process had made it uses that one,
// or boots where it could not be made.
func TestMadeMeanwhile(t *testing.T) {
	for suffix, used := range map[string]bool{suffixState: true, suffixFailed: false} {
		s := Store{t.TempDir()}
		if err := os.Mkdir(s.path("key", suffix), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.path("key", suffix), "file"), nil, 0o400); err != nil {
			t.Fatal(err)
		}
		dir, err := s.create("key", func(string) error {
			t.Errorf("%s: made once more", suffix)
			return nil
		})
		if err != nil || (dir != "") != used {
			t.Errorf("%s: %q, %v", suffix, dir, err)
		}
		s.empty(t)
	}
}

func TestExpire(t *testing.T) {
	s := Store{t.TempDir()}
	old := time.Now().Add(-40 * 24 * time.Hour)
	for i, name := range []string{"c.state", "b.state", "a.state", tempPrefix + "1", "new.seen", "old.seen", "old.failed", "other"} {
		path := filepath.Join(s.Dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-time.Duration(i) * time.Hour)
		if strings.HasPrefix(name, "old") {
			at = old
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	s.expire(2)
	var left []string
	entries, _ := os.ReadDir(s.Dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"b.state", "c.state", "new.seen", "other"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}
