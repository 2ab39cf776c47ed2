package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/test/networld"
)

func TestMain(m *testing.M) {
	// The bridges are not the machine's.
	if err := networld.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// bridged is a life in a bridge network, whose rules nobody can make while the test
// has the lock.
type bridged struct {
	*life
	t      *testing.T
	vm     *fakeVM
	host   bridge.Host
	lock   *state.FileLock
	device string
}

func beginBridged(t *testing.T, vm *fakeVM) *bridged {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("bridge networks need root")
	}
	b := &bridged{t: t, vm: vm, host: bridge.Host{Table: "micropod-test", Lock: filepath.Join(t.TempDir(), "lock")}}
	var err error
	if b.lock, err = state.TryLock(b.host.Lock); err != nil {
		t.Fatal(err)
	}
	vm.started = make(chan struct{}, 1)
	b.life = begin(t, vm, func(p *Plan) {
		b.device = network.DeviceName(p.ID, 0)
		n := b.nic(p.ID, "net", 5, b.device)
		p.NICs = []network.NIC{n}
		p.VM.NICs = []vmm.NIC{{MAC: n.MAC(), MTU: n.MTU(), Device: b.device}}
	})
	t.Cleanup(b.unlock)
	return b
}

// nic is one of a VM in a network, of which i, a digit, is in all addresses.
func (b *bridged) nic(vm, name string, i int, device string) network.NIC {
	addr := func(format string) string { return fmt.Sprintf(format, i) }
	return network.NIC{Name: name, Bridge: &network.Bridge{Host: b.host, Endpoint: bridge.Endpoint{
		Network: bridge.Network{
			ID:     strings.Repeat(addr("%d"), 64),
			Subnet: netip.MustParsePrefix(addr("10.88.%d.0/24")), Gateway: netip.MustParseAddr(addr("10.88.%d.1")), MTU: 1400,
		},
		VM: vm, Device: device, MAC: addr("02:42:0a:58:0%d:02"), Address: netip.MustParsePrefix(addr("10.88.%d.2/24")),
	}}}
}

func (b *bridged) unlock() {
	if b.lock != nil {
		b.lock.Unlock()
	}
	b.lock = nil
}

// awaitVM waits until the VM runs, which it does without its network.
func (b *bridged) awaitVM() {
	b.t.Helper()
	select {
	case <-b.vm.started:
	case <-time.After(time.Minute):
		b.t.Fatal("the VM does not start before its network is there")
	}
}

// wantDevice looks whether the VM's device is in a bridge, and up.
func (b *bridged) wantDevice(plugged bool) {
	b.t.Helper()
	dev, err := netlink.LinkByName(b.device)
	if err != nil {
		b.t.Error(err)
		return
	}
	a := dev.Attrs()
	if in, up := a.MasterIndex != 0, a.Flags&net.FlagUp != 0; in != plugged || up != plugged {
		b.t.Errorf("the device is in a bridge: %v, up: %v; want both %v", in, up, plugged)
	}
}

// end demands that the life is over, whoever has the lock still, and that nothing of it
// is on the host.
func (b *bridged) end() (Outcome, Final) {
	b.t.Helper()
	if b.lock != nil {
		select {
		case <-b.ended:
		case <-time.After(time.Minute): // less than the lock is waited for
			b.t.Error("the supervisor lives as long as its network is waited for")
		}
		b.unlock()
	}
	f, _ := b.final()
	o := <-b.outcome
	b.nothingLeft()
	none := func(string) bool { return false }
	if left, err := b.host.Leftovers(none, none); err != nil || len(left) > 0 {
		b.t.Errorf("left on the host: %v, %v", left, err)
	}
	for _, name := range []string{b.device, "mp-" + strings.Repeat("5", 12)} {
		if _, err := net.InterfaceByName(name); err == nil {
			b.t.Errorf("left on the host: device %s", name)
		}
	}
	return o, f
}

// told are the events of networks.
func (b *bridged) told() string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.store.Root(), "events", "events.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	var all []string
	for _, a := range []events.Action{events.ActionConnect, events.ActionDisconnect} {
		for range strings.Count(string(text), fmt.Sprintf(`"type":"network","action":%q`, a)) {
			all = append(all, string(a))
		}
	}
	return strings.Join(all, " ")
}

// TestNetworkBesideBoot: the VM runs before anything of its network is there, its
// guest is set up when all of it is.
func TestNetworkBesideBoot(t *testing.T) {
	vm := &fakeVM{exit: 7}
	b := beginBridged(t, vm)
	vm.atSetup = func() { b.wantDevice(true) } // said to nobody before awaitVM
	b.awaitVM()
	b.wantDevice(false)
	b.unlock()
	if o, f := b.end(); !o.OK || f.ExitCode != 7 {
		t.Errorf("outcome %+v, final %+v", o, f)
	}
	if got := b.told(); got != "connect disconnect" {
		t.Errorf("events: %q", got)
	}
}

// takeSubnet gives a device of the host an address in the network.
func takeSubnet(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr("10.88.5.9/24")
	if err == nil {
		err = netlink.AddrAdd(lo, a)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.AddrDel(lo, a) })
}

// TestNetworkThatFails ends a boot at once: one of a VMM that does not come up, and
// one of a guest that says nothing.
func TestNetworkThatFails(t *testing.T) {
	for name, vm := range map[string]*fakeVM{"VMM": {stuck: true}, "guest": {silent: true}} {
		t.Run(name, func(t *testing.T) {
			b := beginBridged(t, vm)
			if !vm.stuck {
				b.awaitVM()
			}
			takeSubnet(t)
			b.unlock()
			o, f := b.end()
			if o.OK || o.ExitCode != 125 || f.ExitCode != 125 || o.Phase != "network" || !strings.HasPrefix(o.Error, "join network net: ") {
				t.Errorf("outcome %+v, final %+v", o, f)
			}
			if got := b.told(); got != "" {
				t.Errorf("events: %q", got)
			}
		})
	}
}

// TestTwoErrors: of a step and a network that fail beside each other one is told, and
// both are in the log.
func TestTwoErrors(t *testing.T) {
	var log strings.Builder
	s := &supervisor{log: slog.New(slog.NewTextHandler(&log, nil)), nics: []*nic{{plan: network.NIC{Name: "net"}, joined: &network.Joined{}}}, joined: make(chan struct{})}
	s.fresh()
	phase, err := s.runSteps([]step{{"vmm", func() error {
		s.join()
		return errors.New("no VMM")
	}}})
	if phase != phaseNetwork || err == nil || !strings.HasPrefix(err.Error(), "join network net: ") {
		t.Errorf("%s: %v", phase, err)
	}
	for _, want := range []string{"no VMM", "join network net: "} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not tell of %q:\n%s", want, &log)
		}
	}
}

// TestStopBesideNetwork: who waits for the network keeps no VM alive, and waits no
// longer.
func TestStopBesideNetwork(t *testing.T) {
	b := beginBridged(t, &fakeVM{})
	b.awaitVM()
	b.command(Command{Op: OpStop})
	if o, f := b.end(); o.OK || o.ExitCode != 137 || f.ExitCode != 137 {
		t.Errorf("outcome %+v, final %+v", o, f)
	}
}

// TestVMThatEndsBesideNetwork: without a VM the network is not waited for.
func TestVMThatEndsBesideNetwork(t *testing.T) {
	b := beginBridged(t, &fakeVM{silent: true})
	b.awaitVM()
	b.vm.m.Kill()
	if o, _ := b.end(); o.OK || o.Phase != "boot" || !strings.Contains(o.Error, "the VM ended before its agent answered") {
		t.Errorf("outcome %+v", o)
	}
}

// TestVMThatEndsBeforeItsNetwork: that its device is gone is not the story.
func TestVMThatEndsBeforeItsNetwork(t *testing.T) {
	b := beginBridged(t, &fakeVM{silent: true})
	b.awaitVM()
	dev, err := netlink.LinkByName(b.device)
	if err == nil {
		err = netlink.LinkDel(dev)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.unlock()
	time.AfterFunc(100*time.Millisecond, func() { b.vm.m.Kill() })
	if o, _ := b.end(); o.OK || o.Phase != "boot" || !strings.Contains(o.Error, "the VM ended before its agent answered") {
		t.Errorf("outcome %+v", o)
	}
}
