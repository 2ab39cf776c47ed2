// Package vmmtest is the contract of package vmm as tests: every driver must
// pass Run. It boots real microVMs whose /init is the program in ./guest, so
// half of each test runs on either side of the VM boundary.
package vmmtest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/micropod/micropod/pkg/kernel"
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
	modules, err := k.Modules(kernel.VirtioMMIO, kernel.VirtioBlk, kernel.VirtioConsole, kernel.VirtioRNG, kernel.VirtioVsock)
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

func buildGuest(t *testing.T, dir string) string {
	t.Helper()
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
	var b bytes.Buffer
	n := 0
	add := func(name string, perm uint32, content []byte) {
		n++
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			n, perm, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(content)
		b.Write(make([]byte, -b.Len()&3))
	}
	file := func(path string) []byte {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	add("modules", 0o040755, nil)
	for _, m := range e.Modules {
		add("modules/"+filepath.Base(m), 0o100644, file(m))
	}
	add("mode", 0o100644, []byte(mode))
	add("init", 0o100755, file(e.Init))
	add("TRAILER!!!", 0, nil)
	path := filepath.Join(dir, "initramfs-"+mode)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
