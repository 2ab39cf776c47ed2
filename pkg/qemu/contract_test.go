package qemu_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/micropod/micropod/pkg/qemu"
	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest"
)

func TestContract(t *testing.T) {
	env := vmmtest.NewEnv(t)
	if a := qemu.New(qemu.Options{}).Probe(t.Context()); !a.OK {
		vmmtest.Missing(t, a.Reason)
	}
	vmmtest.Run(t, func(t *testing.T) vmm.Driver {
		return qemu.New(qemu.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	}, env)
}

// idleConfig is a VM that stays: its guest finds no init and, with panic=0,
// hangs in the panic.
func idleConfig(t *testing.T, name string) vmm.Config {
	t.Helper()
	if os.Getenv("MICROPOD_TEST_KERNEL") == "" {
		vmmtest.Missing(t, "MICROPOD_TEST_KERNEL is not set (run scripts/test-setup.sh)")
	}
	env := vmmtest.NewEnv(t)
	dir, err := os.MkdirTemp("", "qemu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	return vmm.Config{
		ID: name, Kernel: env.Kernel, Initrd: initrd, Args: []string{"panic=0"}, CPUs: 1, MemoryMiB: 128,
		VsockPath: filepath.Join(dir, "v"), ConsolePath: filepath.Join(dir, "console"), ConsoleLimit: 1 << 20, Dir: dir,
	}
}

func start(t *testing.T, d vmm.Driver, c vmm.Config) vmm.Machine {
	t.Helper()
	m, err := d.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Kill() })
	return m
}

func seccompMode(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if mode, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(mode)
		}
	}
	return ""
}

func TestSandboxAndCrash(t *testing.T) {
	m := start(t, qemu.New(qemu.Options{}), idleConfig(t, "aaaaaaaaaaaa"))
	if mode := seccompMode(t, m.PID()); mode != "2" {
		t.Errorf("seccomp mode %s, want 2 (filter)", mode)
	}
	syscall.Kill(m.PID(), syscall.SIGSEGV)
	<-m.Done()
	if e := m.Exit(); e.Signal != int(syscall.SIGSEGV) || !strings.Contains(e.Reason, "signal 11") {
		t.Errorf("exit %+v", e)
	}
}

// A QEMU that was built without seccomp says so, and runs without.
func TestNoSandbox(t *testing.T) {
	c := idleConfig(t, "bbbbbbbbbbbb")
	binary := filepath.Join(t.TempDir(), "qemu")
	script := `#!/bin/sh
for a; do
	if [ "$a" = -sandbox ]; then
		echo "$0: -sandbox on: There is no option group 'sandbox'" >&2
		exit 1
	fi
done
exec qemu-system-x86_64 "$@"
`
	if err := os.WriteFile(binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	log := new(strings.Builder)
	d := qemu.New(qemu.Options{Binary: binary, Log: slog.New(slog.NewTextHandler(log, nil))})
	m := start(t, d, c)
	if mode := seccompMode(t, m.PID()); mode == "2" {
		t.Error("the test's QEMU has a sandbox")
	}
	if !strings.Contains(log.String(), "no seccomp sandbox") {
		t.Errorf("log: %q", log)
	}
}

// What one VM writes, no other VM reads or writes.
func TestWritableDiskIsExclusive(t *testing.T) {
	a := idleConfig(t, "cccccccccccc")
	disk := filepath.Join(a.Dir, "disk")
	if err := os.WriteFile(disk, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Disks = []vmm.Disk{{Path: disk}}
	d := qemu.New(qemu.Options{})
	start(t, d, a)
	for _, ro := range []bool{true, false} {
		b := idleConfig(t, "dddddddddddd")
		b.Disks = []vmm.Disk{{Path: disk, ReadOnly: ro}}
		m, err := d.Start(t.Context(), b)
		if err == nil {
			m.Kill()
			t.Errorf("a second VM has the disk, read-only %v", ro)
		} else if !strings.Contains(err.Error(), "lock") {
			t.Error(err)
		}
	}
}
