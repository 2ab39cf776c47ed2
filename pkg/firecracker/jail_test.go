package firecracker

import (
	"context"
	"os"
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
	binary := realBinary(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Binary: binary, Guard: []string{self, guardVerb}})
	fake, err := fakeHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d.host.kvm, d.host.cpuinfo, d.host.apiVersion = fake.kvm, fake.cpuinfo, fake.apiVersion
	return d
}

// jailMachine runs the driver's steps up to the configured VM.
func jailMachine(t *testing.T, d *Driver, c vmm.Config) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := d.prepare(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.abandon)
	for _, step := range []func(context.Context) error{
		m.clearSockets, m.openConsole, m.buildJail, m.openLog, m.startProcess, m.waitReady, m.configure,
	} {
		if err := step(ctx); err != nil {
			t.Fatal(m.explain(err))
		}
	}
	return m
}

func TestJail(t *testing.T) {
	c := setup(t)
	m := jailMachine(t, jailDriver(t), c)
	t.Log(m.PID(), m.files)
	m.abandon()
}
