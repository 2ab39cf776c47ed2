package kernel

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCheckCache(t *testing.T) {
	dir := t.TempDir()
	cacheDir := filepath.Join(dir, "cache")
	check := func(when string, want int) {
		t.Helper()
		found, err := CheckCache(cacheDir)
		if err != nil || len(found) != want {
			t.Errorf("%s: found %v, %v; want %d", when, found, err, want)
		}
	}
	check("before there is one", 0)
	for _, v := range []string{"6.1.0", "6.2.0"} {
		files(t, dir, map[string]string{v: string(bzimage(v, packGzip(t, vmlinux(v, 5000))))})
		mustOpen(t, filepath.Join(dir, v), cacheDir)
	}
	files(t, cacheDir, map[string]string{"6.5.0/vmlinuz": "of somebody else"})
	check("in use", 0)
	files(t, cacheDir, map[string]string{tempPrefix + "1": "x"})
	if err := os.Remove(filepath.Join(dir, "6.1.0")); err != nil {
		t.Fatal(err)
	}
	unlock, err := cache{dir: cacheDir}.lock()
	if err != nil {
		t.Fatal(err)
	}
	files(t, cacheDir, map[string]string{tempPrefix + "2": "x"})
	check("while somebody works on it", 0)
	unlock()
	check("a write, and a kernel with its facts", 3)
	found, err := CheckCache(cacheDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if err := f.Repair(t.Context()); err != nil {
			t.Error(err)
		}
	}
	check("after the repair", 0)
	if k := mustOpen(t, filepath.Join(dir, "6.2.0"), cacheDir); stampOf(k.Path).Size < 0 {
		t.Error("the other kernel is gone")
	}
}
