package rootfs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/ledger"
)

// subjects are the names of what a check finds.
func subjects(t *testing.T, s *Store, keep func(string) bool) []string {
	t.Helper()
	found, err := s.Check(keep)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, filepath.Base(f.Subject))
	}
	return names
}

// TestCheckAgreesWithPrune: it finds what a prune removes, and no more.
func TestCheckAgreesWithPrune(t *testing.T) {
	s := newStore(t, Options{})
	a, b := mustAdd(t, s, makeTar(t, reg("a", "1"))), mustAdd(t, s, makeTar(t, reg("b", "1")))
	whole := mustImage(t, s, EROFS, a)
	damaged := mustImage(t, s, EROFS, a, b)
	if err := os.Truncate(filepath.Join(s.imageDir(damaged.Key), infoFile), 1); err != nil {
		t.Fatal(err)
	}
	hexB, err := parseDiffID(b)
	if err != nil {
		t.Fatal(err)
	}
	keep := func(d string) bool { return d != b }
	if got, want := subjects(t, s, keep), []string{hexB, damaged.Key}; !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	unused, err := s.Unused(func([]string) bool { return false })
	if want := []string{s.imageDir(whole.Key)}; err != nil || !slices.Equal(unused, want) {
		t.Errorf("unused %v, %v; want %v", unused, err, want)
	}
	if unused, err := s.Unused(func(d []string) bool { return slices.Equal(d, []string{a}) }); err != nil || len(unused) > 0 {
		t.Errorf("unused %v, %v; want none", unused, err)
	}
	if _, err := s.Prune(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	if got := subjects(t, s, keep); len(got) > 0 {
		t.Errorf("after the prune: %v", got)
	}
}

// TestCheckSparesTheLiving: what somebody holds is not found, and what the dead
// have left is removed by its own repair.
func TestCheckSparesTheLiving(t *testing.T) {
	s := newStore(t, Options{})
	layer := mustAdd(t, s, makeTar(t, reg("a", "1")))
	h, err := parseDiffID(layer)
	if err != nil {
		t.Fatal(err)
	}
	none := func(string) bool { return false }
	work, err := s.newWorkDir()
	if err != nil {
		t.Fatal(err)
	}
	busy, err := s.lock(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	making, err := s.lock(t.Context(), "0123")
	if err != nil {
		t.Fatal(err)
	}
	if got := subjects(t, s, none); len(got) > 0 {
		t.Errorf("found what is in use: %v", got)
	}
	for _, f := range []*os.File{work.lock, busy, making} {
		f.Close() // as a death does
	}
	found, err := s.Check(none)
	if err != nil || len(found) != 3 {
		t.Fatalf("found %v, %v; want a work directory, a lock and a layer", found, err)
	}
	for _, f := range found {
		if f.Repair == nil {
			continue // a layer is the caller's
		}
		if err := f.Repair(context.Background()); err != nil {
			t.Errorf("%s: %v", f.Subject, err)
		}
	}
	if got := subjects(t, s, none); !slices.Equal(got, []string{h}) {
		t.Errorf("after the repair: %v, want the layer", got)
	}
	if found[0].Kind != ledger.Directory || found[1].Kind != ledger.Lock {
		t.Errorf("kinds %s and %s", found[0].Kind, found[1].Kind)
	}
}
