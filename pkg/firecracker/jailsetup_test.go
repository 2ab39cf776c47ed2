package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/vmm"
)

// These tests run the real jailer with the real Firecracker, as root. Without a
// boot that needs no KVM.

// jailDriver is a driver with a jail on a machine whose KVM is fake.
func jailDriver(t *testing.T) *Driver {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root has a jail")
	}
	d, err := newJailDriver(realBinary(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newJailDriver(binary, dir string) (*Driver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := New(Options{Binary: binary, Guard: []string{self, guardVerb}})
	fake, err := fakeHost(dir)
	d.host.kvm, d.host.cpuinfo, d.host.apiVersion = fake.kvm, fake.cpuinfo, fake.apiVersion
	return d, err
}

// runSteps runs the driver's steps up to a process that answers, or on to the
// configured VM.
func runSteps(d *Driver, c vmm.Config, configure bool) (*machine, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := d.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{m.clearSockets, m.openConsole, m.buildJail, m.openLog, m.startProcess, m.waitReady}
	if configure {
		steps = append(steps, m.configure, m.handingOver(func(context.Context) error { return nil }))
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			err = m.explain(err)
			m.abandon()
			return nil, err
		}
	}
	return m, nil
}

func jailMachine(t *testing.T, d *Driver, c vmm.Config) *machine {
	t.Helper()
	m, err := runSteps(d, c, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.abandon)
	return m
}

// listenerOf listens as a supervisor does before the start.
func listenerOf(t *testing.T, c vmm.Config, port int) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", c.VsockPath, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// show describes a file: type, mode, owner, group and links.
func show(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%v %d:%d %d", info.Mode(), st.Uid, st.Gid, st.Nlink)
}

// statusOf returns lines of /proc/PID/status by their keys.
func statusOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		all[key] = strings.Join(strings.Fields(value), " ")
	}
	return all
}

// checkFreed looks for everything that a jailed VM has.
func checkFreed(t *testing.T, d *Driver, c vmm.Config, id int) {
	t.Helper()
	for _, path := range []string{
		filepath.Join(c.Dir, jailDir), c.VsockPath, filepath.Join(c.Dir, "firecracker.sock"),
		leaseFile(d.host.idLeases(), uint32(id)),
	} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	in, err := d.host.hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range in {
		if _, err := os.Lstat(h.leaf(c.ID)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", h.leaf(c.ID), err)
		}
	}
	busy, err := idsOfProcesses()
	if err != nil || busy[uint32(id)] {
		t.Errorf("a process of user %d is left, %v", id, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), c.Dir) {
		t.Errorf("a mount is left, %v", err)
	}
}
