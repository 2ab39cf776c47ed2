package firecracker

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// TestHandOver: the real Firecracker opens the device in its own network
// namespace, and keeps it when it is moved here. It has no guest; for one see
// the contract's test of devices.
func TestHandOver(t *testing.T) {
	for name, noJail := range map[string]bool{"in a jail": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			d := jailDriver(t) // skips without root
			d.o.NoJail = noJail
			runtime.LockOSThread() // for ever: the namespace ends with the thread
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				t.Fatal(err)
			}
			c := setup(t)
			c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1400, Device: "mp-0"}, {MAC: "02:00:00:00:00:02", MTU: 1500}, {MAC: "02:00:00:00:00:03", MTU: 1600, Device: "mp-1"}}
			m, err := runSteps(d, c, true)
			if err != nil {
				t.Fatal(err)
			}
			defer m.abandon()
			if m.Link(0) != nil || m.Link(1) == nil || m.Link(2) != nil {
				t.Errorf("links %v, %v, %v", m.Link(0), m.Link(1), m.Link(2))
			}
			for device, mtu := range map[string]int{"mp-0": 1400, "mp-1": 1600} {
				checkHandedOver(t, device, mtu)
			}
			again := setup(t)
			again.ID, again.NICs = "second012345", c.NICs[2:]
			if m, err := runSteps(d, again, true); err == nil {
				m.abandon()
				t.Error("a device is taken twice")
			} else if !strings.Contains(err.Error(), "move the TAP device mp-1: there is a device of that name") {
				t.Error(err)
			}
			if err := unix.Kill(m.PID(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-m.proc.exited
			if left, err := net.Interfaces(); err != nil || len(left) != 1 { // lo
				t.Errorf("left: %+v, %v", left, err)
			}
		})
	}
}

// checkHandedOver: the device is as vmm.NIC says, and somebody is at its other
// end: when it is up it has a carrier.
func checkHandedOver(t *testing.T, name string, mtu int) {
	t.Helper()
	dev, err := net.InterfaceByName(name)
	if err != nil {
		t.Error(err)
		return
	}
	if dev.MTU != mtu || dev.Flags&net.FlagUp != 0 {
		t.Errorf("%+v, want MTU %d, not up", dev, mtu)
	}
	if err := (tap{Name: name}).up(); err != nil {
		t.Fatal(err)
	}
	// The kernel notices a carrier a moment later.
	dev, err = net.InterfaceByName(name)
	for end := time.Now().Add(time.Minute); err == nil && dev.Flags&net.FlagRunning == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		dev, err = net.InterfaceByName(name)
	}
	if err != nil || dev.Flags&net.FlagRunning == 0 {
		t.Errorf("%+v, %v, want it running", dev, err)
	}
}
