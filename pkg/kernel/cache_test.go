package kernel

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mustOpen(t *testing.T, path, cacheDir string) *Kernel {
	t.Helper()
	k, err := Open(path, cacheDir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	s := stampOf(path)
	if s.Size < 0 {
		t.Fatalf("no file %s", path)
	}
	return s.Ino
}

func TestCacheIsUsedAndRepaired(t *testing.T) {
	dir := t.TempDir()
	path, cacheDir := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "a", "cache")
	elf := vmlinux("6.1.0", 1000)
	files(t, dir, map[string]string{"vmlinuz": string(bzimage("6.1.0", packGzip(t, elf)))})

	first := mustOpen(t, path, cacheDir)
	was := inode(t, first.Path)
	again := mustOpen(t, path, cacheDir)
	if again.Path != first.Path || inode(t, again.Path) != was {
		t.Error("unpacked again")
	}
	if again.Fingerprint() != first.Fingerprint() {
		t.Error("the fingerprint is not stable")
	}

	for name, damage := range map[string]func() error{
		"ELF cut":       func() error { return os.Truncate(first.Path, 10) },
		"ELF removed":   func() error { return os.Remove(first.Path) },
		"facts garbled": func() error { return os.WriteFile(cache{cacheDir}.factsPath(path), []byte(`{"format":1}`), 0o600) },
		"all removed":   func() error { return os.RemoveAll(cacheDir) },
		"temporary file": func() error {
			return os.WriteFile(filepath.Join(cacheDir, tempPrefix+"x"), nil, 0o600)
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		k := mustOpen(t, path, cacheDir)
		if b, err := os.ReadFile(k.Path); err != nil || string(b) != string(elf) {
			t.Errorf("%s: not repaired: %v", name, err)
		}
		if fi, err := os.Stat(cacheDir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: cache directory: %v %v", name, fi, err)
		}
	}
}

// changed is a file's time of change. Not of its stamp, which is to be tested.
func changed(t *testing.T, path string) time.Time {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return time.Unix(st.Ctim.Unix())
}

// A kernel replaced by one of the same size, with its times put back, is still
// another file.
func TestCacheNoticesReplacedKernel(t *testing.T) {
	dir := t.TempDir()
	path, cacheDir := filepath.Join(dir, "vmlinux"), filepath.Join(dir, "cache")
	files(t, dir, map[string]string{"vmlinux": string(vmlinux("6.1.0", 1000))})
	k := mustOpen(t, path, cacheDir)
	when := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path, cacheDir)
	for was := changed(t, path); changed(t, path) == was; { // the file system's clock ticks slowly
		files(t, dir, map[string]string{"vmlinux": string(vmlinux("6.2.0", 1000))})
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	k2 := mustOpen(t, path, cacheDir)
	if k2.Release != "6.2.0" || k2.Fingerprint() == k.Fingerprint() {
		t.Errorf("still the old kernel: %s", k2.Release)
	}
}

func TestCacheNoticesModules(t *testing.T) {
	k, dir := openWith(t, "", nil)
	prints := map[string]bool{k.Fingerprint(): true}
	check := func(what string, want Support) {
		t.Helper()
		k := mustOpen(t, filepath.Join(dir, "vmlinux"), filepath.Join(dir, "cache"))
		if got := k.Support(Ext4); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
		if prints[k.Fingerprint()] {
			t.Errorf("%s: the fingerprint is one of before", what)
		}
		prints[k.Fingerprint()] = true
	}
	ko := "lib/modules/" + testRelease + "/kernel/ext4.ko"
	files(t, dir, map[string]string{ko: string(module("depends=\x00"))})
	check("modules arrive", ViaModule)
	files(t, dir, map[string]string{ko: string(module("depends=\x00version=2\x00"))})
	check("a module changes", ViaModule)
	files(t, dir, map[string]string{"lib/modules/" + testRelease + "/modules.builtin": "kernel/ext4.ko\n"})
	check("it gets built in", Builtin)
}

func TestConcurrentOpen(t *testing.T) {
	dir := t.TempDir()
	path, cacheDir := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "cache")
	files(t, dir, map[string]string{"vmlinuz": string(bzimage("6.1.0", packGzip(t, vmlinux("6.1.0", 1<<20))))})
	var wg sync.WaitGroup
	paths := make([]string, 8)
	for i := range paths {
		wg.Go(func() {
			k, err := Open(path, cacheDir)
			if err != nil {
				t.Error(err)
				return
			}
			paths[i] = k.Path
		})
	}
	wg.Wait()
	for _, p := range paths {
		if p != paths[0] {
			t.Errorf("%s and %s", p, paths[0])
		}
	}
}

func TestReplacedKernelIsRemoved(t *testing.T) {
	dir := t.TempDir()
	cacheDir := filepath.Join(dir, "cache")
	for _, v := range []string{"6.1.0", "6.2.0", "6.3.0"} {
		files(t, dir, map[string]string{v: string(bzimage(v, packGzip(t, vmlinux(v, 5000))))})
	}
	old, kept := mustOpen(t, filepath.Join(dir, "6.1.0"), cacheDir), mustOpen(t, filepath.Join(dir, "6.2.0"), cacheDir)
	if err := os.Remove(old.Source); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, filepath.Join(dir, "6.3.0"), cacheDir)
	if stampOf(old.Path).Size >= 0 {
		t.Error("the old kernel is still there")
	}
	if left, _ := filepath.Glob(filepath.Join(cacheDir, factsPrefix+"*")); len(left) != 2 {
		t.Errorf("facts %v, want those of two kernels", left)
	}
	if stampOf(kept.Path).Size < 0 {
		t.Error("a kernel whose file is still there was removed")
	}
}

// A VM may be booted again from a kernel whose file was replaced since.
func TestHeldKernelStays(t *testing.T) {
	dir := t.TempDir()
	cacheDir := filepath.Join(dir, "cache")
	files(t, dir, map[string]string{"k": string(bzimage("6.1.0", packGzip(t, vmlinux("6.1.0", 5000))))})
	old := mustOpen(t, filepath.Join(dir, "k"), cacheDir)
	hold, err := os.Open(old.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if err := unix.FcntlFlock(hold.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}); err != nil {
		t.Fatal(err)
	}
	files(t, dir, map[string]string{"k": string(bzimage("6.2.0", packGzip(t, vmlinux("6.2.0", 5000))))})
	mustOpen(t, filepath.Join(dir, "k"), cacheDir)
	if stampOf(old.Path).Size < 0 {
		t.Fatal("a kernel that is held was removed")
	}
	if found, err := CheckCache(cacheDir); len(found) != 0 || err != nil {
		t.Errorf("a kernel that is held is a finding: %+v, %v", found, err)
	}
	hold.Close()
	if err := (cache{cacheDir}).tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stampOf(old.Path).Size >= 0 {
		t.Error("a kernel that nobody holds any more is still there")
	}
}
