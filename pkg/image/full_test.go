package image

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// On a full disk an image can still be removed: how else would room be made?
func TestRemoveOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	mnt := t.TempDir()
	runTool(t, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mnt)
	t.Cleanup(func() { runTool(t, "umount", mnt) })
	layers := &diskLayers{dir: filepath.Join(mnt, "layers"), reads: map[string]int{}}
	if err := os.Mkdir(layers.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(mnt, "images"), layers, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, img := range map[string]*testImage{"a:1": simple(t, 1), "b:1": simple(t, 2)} {
		if _, err := s.Load(t.Context(), openFile(t, writeFile(t, legacyArchive(t, img, `["`+name+`"]`))), LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(mnt, "filler"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if _, err := s.Remove(t.Context(), "a:1", nobody, false); err != nil {
		t.Error(err)
	}
	images, errs := s.List()
	if len(images) != 1 || images[0].Names[0] != "b:1" || len(errs) > 0 {
		t.Fatalf("got %v, %v, want only b:1", images, errs)
	}
	if kept := layers.kept(t); len(kept) != len(images[0].DiffIDs) {
		t.Errorf("the store keeps %v, b:1 needs %v", kept, images[0].DiffIDs)
	}
}
