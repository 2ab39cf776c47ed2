package firecracker

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest"
)

// These tests boot jailed VMs, so they need KVM: MICROPOD_TEST_KVM=1 says that
// it is there.

func bootingDriver(t *testing.T) *Driver {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root has a jail")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Binary: realBinary(t), Templates: true, Guard: []string{self, guardVerb}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if a := d.Probe(t.Context()); !a.OK {
		if os.Getenv("MICROPOD_TEST_KVM") == "1" {
			t.Fatal(a.Reason)
		}
		t.Skipf("%s (make test-firecracker runs this in the KVM test host)", a.Reason)
	}
	return d
}

// TestJailContract: a jailed VM behaves as any other.
func TestJailContract(t *testing.T) {
	bootingDriver(t)
	vmmtest.Run(t, func(t *testing.T) vmm.Driver { return bootingDriver(t) }, vmmtest.NewEnv(t))
}

// TestJailBoots looks at a jailed VM that runs. Its guest finds no init and,
// with panic=0, stays in the panic.
func TestJailBoots(t *testing.T) {
	d := bootingDriver(t)
	c := setup(t)
	c.Kernel = vmmtest.NewEnv(t).Kernel
	c.Args = []string{"panic=0"}
	m := start(t, d, c).(*machine)
	pid, id := m.PID(), m.jail.id()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) < 3 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, f := range threads {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"\nSeccomp:\t2\n", "\nNoNewPrivs:\t1\n", fmt.Sprintf("\nUid:\t%d\t%d\t%d\t%d\n", id, id, id, id),
			"\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n",
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in %s:\n%s", want, f, text)
			}
		}
	}
	checkNamespaces(t, m)
	checkCgroups(t, m)
	conn, err := net.Dial("unix", c.VsockPath)
	if err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
	if e := m.Exit(); e != (vmm.Exit{Code: -1, Signal: 9, Reason: "killed"}) {
		t.Errorf("exit %+v", e)
	}
	checkFreed(t, d, c, id)
	if got := names(t, c); !strings.HasPrefix(got, "console.log ") {
		t.Errorf("afterwards there are: %s", got)
	}
}
