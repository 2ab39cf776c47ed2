package firecracker

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestLeftovers are the cgroups of one VM, in every hierarchy, and no others.
func TestLeftovers(t *testing.T) {
	d := New(Options{})
	rootOnPaper(t, d)
	d.host.run = t.TempDir()
	mounts := []string{t.TempDir(), t.TempDir()}
	writeFile(t, filepath.Join(d.host.proc, "self", "mountinfo"),
		"1 1 0:1 / "+mounts[0]+" rw - cgroup cgroup rw,cpu,pids\n1 1 0:1 / "+mounts[1]+" rw - cgroup cgroup rw,memory\n")
	for _, mount := range mounts {
		for _, id := range []string{"aaaaaaaaaaaa", "bbbbbbbbbbbb"} {
			if err := os.MkdirAll(filepath.Join(mount, cgroupParent, id), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	left, err := d.Leftovers("aaaaaaaaaaaa")
	want := []string{filepath.Join(mounts[0], cgroupParent, "aaaaaaaaaaaa"), filepath.Join(mounts[1], cgroupParent, "aaaaaaaaaaaa")}
	if err != nil || !slices.Equal(left, want) {
		t.Errorf("left over: %v, %v; want %v", left, err, want)
	}
	if err := d.Clean("aaaaaaaaaaaa", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if left, err := d.Leftovers("aaaaaaaaaaaa"); err != nil || len(left) > 0 {
		t.Errorf("after the clean-up: %v, %v", left, err)
	}
	d.host.root = false
	if left, err := d.Leftovers("bbbbbbbbbbbb"); err != nil || len(left) > 0 {
		t.Errorf("without root: %v, %v", left, err)
	}
}

// TestStrays are leases that nobody holds, of whichever VM.
func TestStrays(t *testing.T) {
	d := New(Options{})
	rootOnPaper(t, d)
	d.host.run = t.TempDir()
	if left, err := d.Strays(); err != nil || len(left) > 0 {
		t.Errorf("before the first VM: %v, %v", left, err)
	}
	r := IDRange{1900000000, 1900000004}
	held, err := leaseID(d.host.idLeases(), r, "vm")
	if err != nil {
		t.Fatal(err)
	}
	dead, err := leaseID(d.host.idLeases(), r, "vm")
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.file.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := d.Strays()
	if want := []string{dead.file.Name()}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left over: %v, %v; want %v", left, err, want)
	}
	for range 2 {
		if err := d.RemoveStrays(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := d.Strays(); err != nil || len(left) > 0 {
		t.Errorf("after the removal: %v, %v", left, err)
	}
	if _, err := os.Lstat(held.file.Name()); err != nil {
		t.Errorf("the lease of a living holder: %v", err)
	}
}
