package qemu

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestStrayTemplates: what a dead maker left is found and removed, what a living
// one writes is not.
func TestStrayTemplates(t *testing.T) {
	d, dir := New(Options{}), filepath.Join(t.TempDir(), "templates")
	check := func(when string, want ...string) {
		t.Helper()
		if got, err := d.StrayTemplates(dir); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	check("before there is one")
	ts := templates{dir}
	if _, err := ts.open("key", nil); err != nil { // leaves a mark
		t.Fatal(err)
	}
	f, err := ts.open("key", func(*os.File) error {
		check("in the making")
		return d.RemoveStrayTemplates(dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	check("made")
	stray := filepath.Join(dir, tempPrefix+"1")
	if err := os.WriteFile(stray, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("after a death", stray)
	if err := d.RemoveStrayTemplates(dir); err != nil {
		t.Fatal(err)
	}
	check("after the removal")
	if f, err := ts.open("key", nil); err != nil || f == nil {
		t.Errorf("the template is gone: %v", err)
	} else {
		f.Close()
	}
}
