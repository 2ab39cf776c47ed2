package firecracker

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// TestNetworkBeforeBoot: the real Firecracker opens the TAP device that its
// guard made, without a right to make one. No KVM is needed for that.
func TestNetworkBeforeBoot(t *testing.T) {
	binary := realBinary(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
		t.Skipf("no TAP devices here: %v", err)
	} else {
		f.Close()
	}
	c := setup(t)
	name := tapName(0, vmm.NIC{})
	socket := filepath.Join(t.TempDir(), "api")
	s := guardSpec{Taps: []tap{{Name: name, Owner: os.Geteuid(), MTU: 65520}}, Command: []string{binary, "--id", c.ID, "--api-sock", socket}, Exec: true, Parent: os.Getpid()}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := startGuard(t.Context(), []string{self, guardVerb}, s, command{stdout: out, stderr: out, unprivileged: true})
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skipf("no user namespaces here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	defer p.guard.closeLinks()
	if p.pid() != p.cmd.Process.Pid || len(p.guard.links) != 1 {
		t.Errorf("pid %d of %d, %d links", p.pid(), p.cmd.Process.Pid, len(p.guard.links))
	}
	api := NewClient(socket)
	defer api.Close()
	put := PutNetworkInterface(NetworkInterface{IfaceID: "eth0", HostDevName: name, GuestMAC: "02:00:00:00:00:01"})
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err = api.Do(ctx, put)
		cancel()
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			break
		}
		select {
		case <-p.exited:
			t.Fatal("firecracker ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err != nil {
		t.Error(err)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid()) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 && !strings.Contains(string(status), "\nCapPrm:\t0000000000000000\n") {
		t.Errorf("firecracker has capabilities:\n%s", status)
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(p.pid()) + "/ns/net")
	if err == nil && ours == theirs {
		t.Error("firecracker is in our network namespace")
	}
	if _, err := net.InterfaceByName(name); err == nil {
		t.Errorf("%s is in our network namespace", name)
	}
}
