package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// realKernel is the distribution's kernel as scripts/download-kernel.sh leaves
// it: MICROPOD_TEST_KERNEL names the vmlinux of a root.
func realKernel(t testing.TB) string {
	t.Helper()
	path := os.Getenv("MICROPOD_TEST_KERNEL")
	switch {
	case path != "":
		return path
	case os.Getenv("MICROPOD_TEST_REQUIRE") == "1":
		t.Fatal("MICROPOD_TEST_KERNEL is not set (run scripts/test-setup.sh)")
	default:
		t.Skip("MICROPOD_TEST_KERNEL is not set")
	}
	return ""
}

func openReal(t *testing.T) (*Kernel, string) {
	t.Helper()
	dir := t.TempDir()
	k, err := Open(realKernel(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	return k, dir
}

func TestRealKernelIsBootableELF(t *testing.T) {
	k, _ := openReal(t)
	f, err := elf.Open(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 || f.Entry == 0 {
		t.Errorf("machine %s, entry %#x", f.Machine, f.Entry)
	}
	// The PVH note is what QEMU's and Firecracker's loaders enter by.
	pvh := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool {
		b, _ := io.ReadAll(io.LimitReader(p.Open(), 1<<16))
		return p.Type == elf.PT_NOTE && strings.Contains(string(b), "Xen\x00")
	})
	if !pvh {
		t.Error("no PVH note")
	}
	fi, err := os.Stat(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
}

func TestRealKernelFeatures(t *testing.T) {
	k, _ := openReal(t)
	for _, f := range []Feature{ACPI, VirtioMMIO, VirtioBlk, VirtioNet, VirtioConsole, VirtioVsock,
		VirtioRNG, VirtioBalloon, EROFS, Ext4, Overlay, Squashfs} {
		if k.Support(f) == Missing {
			t.Errorf("%s is missing", f)
		}
	}
	if k.Support("no-such-thing") != Missing {
		t.Error("a feature that nobody knows is there")
	}
}

// The load order is right when every module finds all its dependencies loaded.
// The dependencies are read here by another way than in the code: the symbols
// that a module needs and that an earlier one defines.
func TestRealModulesLoadInOrder(t *testing.T) {
	k, _ := openReal(t)
	mods, err := k.Modules(VirtioMMIO, VirtioBlk, EROFS, VirtioConsole, VirtioNet, VirtioRNG,
		VirtioBalloon, Overlay, VirtioVsock, Squashfs, VirtioFS)
	if err != nil {
		t.Fatal(err)
	}
	if len(mods) == 0 {
		t.Skip("everything is built in")
	}
	exports := map[string]int{}
	needs := make([][]string, len(mods))
	for i, m := range mods {
		f := moduleELF(t, m)
		syms, err := f.Symbols()
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		for _, s := range syms {
			if s.Section == elf.SHN_UNDEF && s.Name != "" {
				needs[i] = append(needs[i], s.Name)
			}
			if name, ok := strings.CutPrefix(s.Name, "__ksymtab_"); ok {
				if _, dup := exports[name]; dup {
					t.Errorf("%s is listed twice or exports %s again", m.Name, name)
				}
				exports[name] = i
			}
		}
	}
	for i, m := range mods {
		for _, sym := range needs[i] {
			if j, ok := exports[sym]; ok && j >= i {
				t.Errorf("%s (%d) needs %s of %s (%d)", m.Name, i, sym, mods[j].Name, j)
			}
		}
	}
}

func moduleELF(t *testing.T, m Module) *elf.File {
	t.Helper()
	r, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	return f
}

// Where there is neither a configuration nor a list of what is built in,
// strings decide. They must be in the code of the feature and nowhere else.
func TestMarkersTellModulesFromBuiltin(t *testing.T) {
	k, _ := openReal(t)
	elf, err := readBounded(k.Path, maxELF)
	if err != nil {
		t.Fatal(err)
	}
	for f, spec := range specs() {
		inKernel := bytes.Contains(elf, []byte(spec.marker))
		switch k.Support(f) {
		case Builtin:
			if !inKernel {
				t.Errorf("%s is built in, but %q is not in the kernel", f, spec.marker)
			}
		case ViaModule:
			if inKernel {
				t.Errorf("%s is a module, but %q is in the kernel", f, spec.marker)
			}
			mods, err := k.Modules(f)
			if err != nil {
				t.Fatal(err)
			}
			m := mods[slices.IndexFunc(mods, func(m Module) bool { return m.Name == spec.module })]
			r, err := m.Open()
			if err != nil {
				t.Fatal(err)
			}
			ko, _ := io.ReadAll(r)
			r.Close()
			if !bytes.Contains(ko, []byte(spec.marker)) {
				t.Errorf("%q is not in module %s", spec.marker, m.Name)
			}
		}
	}
}

func TestRealKernelWithoutModules(t *testing.T) {
	k, cache := openReal(t)
	dir := t.TempDir()
	link := filepath.Join(dir, "vmlinux")
	if err := copyFile(link, k.Path); err != nil {
		t.Fatal(err)
	}
	bare, err := Open(link, cache)
	if err != nil {
		t.Fatal(err)
	}
	if bare.Release != k.Release {
		t.Errorf("release from the ELF is %q, from the header %q", bare.Release, k.Release)
	}
	if bare.Digest != k.Digest || bare.Path != link {
		t.Errorf("an ELF should be used as it is: %+v", bare)
	}
	for f := range specs() {
		want := k.Support(f)
		if want == ViaModule {
			want = Missing
		}
		if got := bare.Support(f); got != want {
			t.Errorf("%s: %s, want %s", f, got, want)
		}
	}
	if _, err := bare.Modules(EROFS); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "erofs") {
		t.Errorf("missing feature: %v", err)
	}
	if bare.Fingerprint() == k.Fingerprint() {
		t.Error("the same fingerprint with and without modules")
	}
}

func copyFile(dst, src string) error {
	b, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, b, 0o600)
}

func TestOpenAbsent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vmlinux")
	check := func() {
		t.Helper()
		_, err := Open(path, filepath.Join(dir, "cache"))
		want := "kernel file not found: " + path + " (run scripts/download-kernel.sh)"
		if !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	}
	check()
	if err := os.Symlink("kernels/gone/vmlinuz", path); err != nil {
		t.Fatal(err)
	}
	check()
	if _, err := os.Stat(filepath.Join(dir, "cache")); err == nil {
		t.Error("a cache was made for nothing")
	}
}

func BenchmarkOpenCached(b *testing.B) {
	dir := b.TempDir()
	path := realKernel(b)
	if _, err := Open(path, dir); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		k, err := Open(path, dir)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.Modules(VirtioMMIO, VirtioBlk, EROFS, Overlay, VirtioVsock); err != nil {
			b.Fatal(err)
		}
		k.Fingerprint()
	}
}
