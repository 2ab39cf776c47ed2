package template

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestStrays: what a dead maker left is found and removed, what a living one
// writes is not.
func TestStrays(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "templates")}
	check := func(when string, want ...string) {
		t.Helper()
		if got, err := s.Strays(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	check("before there is one")
	if _, err := s.Open("key", nil); err != nil { // leaves a mark
		t.Fatal(err)
	}
	if _, err := s.Open("key", func(string) error {
		check("in the making")
		return s.RemoveStrays()
	}); err != nil {
		t.Fatal(err)
	}
	check("made")
	stray := filepath.Join(s.Dir, tempPrefix+"1")
	if err := os.MkdirAll(filepath.Join(stray, "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	check("after a death", stray)
	if err := s.RemoveStrays(); err != nil {
		t.Fatal(err)
	}
	check("after the removal")
	if dir, err := s.Open("key", nil); err != nil || dir == "" {
		t.Errorf("the template is gone: %v", err)
	}
}
