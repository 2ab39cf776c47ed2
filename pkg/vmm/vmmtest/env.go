// Package vmmtest is the contract of package vmm as tests: every driver must
// pass Run. It boots real microVMs whose /init is the program in ./guest, so
// half of each test runs on either side of the VM boundary.
package vmmtest

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/rootfs"
)

// Env is what the suite boots with.
type Env struct {
	// Kernel is an uncompressed ELF vmlinux.
	Kernel string
	// Modules are uncompressed module files in load order.
	Modules []string
	// Init is the static program that becomes /init.
	Init string
}

// NewEnv prepares an Env from the kernel that MICROPOD_TEST_KERNEL names. It
// skips the test when there is none, or fails it if MICROPOD_TEST_REQUIRE=1.
func NewEnv(t *testing.T) Env {
	t.Helper()
	if os.Getenv(childEnv) != "" {
		return Env{} // the config comes from the parent
	}
	path := os.Getenv("MICROPOD_TEST_KERNEL")
	if path == "" {
		Missing(t, "MICROPOD_TEST_KERNEL is not set (run scripts/test-setup.sh)")
	}
	dir := t.TempDir()
	k, err := kernel.Open(path, filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	modules, err := k.Modules(kernel.VirtioMMIO, kernel.VirtioBlk, kernel.VirtioConsole, kernel.VirtioRNG, kernel.VirtioVsock, kernel.VirtioNet)
	if err != nil {
		t.Fatal(err)
	}
	env := Env{Kernel: k.Path}
	for i, m := range modules {
		to := filepath.Join(dir, fmt.Sprintf("%02d-%s.ko", i, m.Name))
		if err := unpack(m, to); err != nil {
			t.Fatal(err)
		}
		env.Modules = append(env.Modules, to)
	}
	env.Init = buildGuest(t, dir)
	return env
}

// Missing ends a test that lacks something on this host.
func Missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func unpack(m kernel.Module, to string) error {
	r, err := m.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// buildGuest makes the guest's program, unless MICROPOD_TEST_GUEST names it:
// where the tests run, there may be no compiler.
func buildGuest(t *testing.T, dir string) string {
	t.Helper()
	if made := os.Getenv("MICROPOD_TEST_GUEST"); made != "" {
		return made
	}
	out := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out,
		"github.com/micropod/micropod/pkg/vmm/vmmtest/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest program: %v\n%s", err, b)
	}
	return out
}

// initramfs writes an initramfs for one mode of the guest and returns its path.
func (e Env) initramfs(t *testing.T, dir, mode string) string {
	t.Helper()
	var entries []rootfs.InitEntry
	add := func(name string, perm fs.FileMode, path string) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, rootfs.InitEntry{Name: name, Mode: perm, Size: info.Size(),
			Open: func() (io.ReadCloser, error) { return os.Open(path) }})
	}
	entries = append(entries, rootfs.InitEntry{Name: "mode", Mode: 0o644, Size: int64(len(mode)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(mode)), nil }})
	for _, m := range e.Modules {
		add("modules/"+filepath.Base(m), 0o644, m)
	}
	add("init", 0o755, e.Init)
	path := filepath.Join(dir, "initramfs-"+mode)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := rootfs.WriteInitramfs(f, entries); err != nil {
		t.Fatal(err)
	}
	return path
}
