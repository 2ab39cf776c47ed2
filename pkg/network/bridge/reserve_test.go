package bridge

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// wantBridge is that the host has the bridge of a network, or not.
func (l *lab) wantBridge(n Network, want bool) {
	l.t.Helper()
	if got := strings.Contains(l.host.run("ip -o link"), " "+n.Device()+":"); got != want {
		l.t.Errorf("bridge %s: %v", n.Device(), got)
	}
}

// TestReserve: a network has its subnet before anybody is in it, for as long as its
// Host wants.
func TestReserve(t *testing.T) {
	l := newLab(t)
	l.host.sysctl("ipv4/ip_forward", "1") // which is never undone
	before := l.snapshot()
	e := testEndpoint(testNetwork(1), 2)
	e.Network.Subnet6, e.Network.Gateway6, e.Address6 = netip.Prefix{}, netip.Addr{}, netip.Prefix{}
	other := testNetwork(2)
	other.Subnet, other.Gateway = e.Network.Subnet, e.Network.Gateway
	reserve := func(n Network) error { return l.host.try(func() error { return l.h.Reserve(n) }) }
	release := func() { l.host.do(func() error { return l.h.Release(e.Network) }) }

	l.host.do(func() error { return l.h.Reserve(e.Network) })
	l.wantBridge(e.Network, true)
	if err := reserve(other); !errors.Is(err, ErrInUse) {
		t.Errorf("what another network has: %v", err)
	}
	l.wantBridge(other, false)
	l.host.do(func() error { return l.h.Join(e) })
	before2 := l.snapshot()
	release()
	l.host.do(func() error { return l.h.Reserve(e.Network) })
	l.wantSnapshot("while somebody is in it", before2)
	l.host.do(func() error { return l.h.Leave(e) })
	l.wantSnapshot("after the last has left", before)

	// Nobody came.
	l.host.do(func() error { return l.h.Reserve(e.Network) })
	l.wantLeftovers(func(string) bool { return true }, "bridge "+e.Network.Device())
	release()
	release()
	l.wantSnapshot("after it was released", before)

	// Before a crash it was elsewhere, and that was not recorded.
	l.host.do(func() error { return l.h.Reserve(e.Network) })
	moved := e.Network
	moved.Subnet, moved.Gateway = netip.MustParsePrefix("10.90.0.0/24"), netip.MustParseAddr("10.90.0.1")
	l.host.do(func() error { return l.h.Reserve(moved) })
	if got := l.host.run("ip -o -4 address show dev " + moved.Device()); !strings.Contains(got, "10.90.0.1/24") || strings.Contains(got, "10.89.") {
		t.Errorf("%s", got)
	}
	release()
	l.wantSnapshot("after it was moved", before)
	// A crash left it, and somebody else came to the subnet.
	l.host.do(func() error { return l.h.Reserve(e.Network) })
	l.host.run("ip link add docker0 type bridge")
	l.host.run("ip address add 10.89.1.1/24 dev docker0")
	if err := reserve(e.Network); !errors.Is(err, ErrInUse) {
		t.Errorf("what somebody else has by now: %v", err)
	}
	l.host.run("ip link del docker0")
	l.wantSnapshot("after it was refused", before)
	if err := reserve(Network{ID: "x"}); err == nil {
		t.Error("an id that is none")
	}
}

// TestAwaited: what is reserved for somebody who is about to join is nothing to mend,
// and nothing that is left over.
func TestAwaited(t *testing.T) {
	l := newLab(t)
	running, n := testEndpoint(testNetwork(1), 2), testNetwork(2)
	l.guest(running)
	l.host.do(func() error { return l.h.Reserve(n) })
	want := l.snapshot()
	all := func() ([]Endpoint, error) { return []Endpoint{running}, nil }
	living := func(vm string) bool { return vm == running.VM }
	awaited := func(bridge string) bool { return bridge == n.Device() }
	intact := func(reserved func(string) bool, want bool) {
		t.Helper()
		l.host.do(func() error {
			got, err := l.h.Intact(all, reserved)
			if got != want {
				t.Errorf("intact: %v", got)
			}
			return err
		})
	}
	intact(awaited, true)
	l.host.do(func() error { return l.h.Restore(all, awaited) })
	l.host.do(func() error { return l.h.Remove(living, awaited) })
	l.host.do(func() error {
		left, err := l.h.Leftovers(living, awaited)
		if len(left) > 0 {
			t.Errorf("%v", left)
		}
		return err
	})
	l.wantSnapshot("while somebody is awaited", want)
	intact(nobody, false)
	l.wantLeftovers(living, "bridge "+n.Device())
	l.host.do(func() error { return l.h.Restore(all, nobody) })
	l.wantBridge(n, false)
	l.wantBridge(running.Network, true)
	intact(nobody, true)
}

// TestReserveTogether: of Hosts that want the same subnet at once one has it.
func TestReserveTogether(t *testing.T) {
	l := newLab(t)
	const hosts = 12
	errs := make([]error, hosts)
	var wg sync.WaitGroup
	for i := range hosts {
		h, n := l.h, testNetwork(i)
		h.Table = "micropod-" + n.ID[:12]
		n.Subnet, n.Gateway = netip.MustParsePrefix("10.91.0.0/24"), netip.MustParseAddr("10.91.0.1")
		n.Subnet6, n.Gateway6 = netip.Prefix{}, netip.Addr{}
		wg.Go(func() { errs[i] = l.host.try(func() error { return h.Reserve(n) }) })
	}
	wg.Wait()
	had := 0
	for i, err := range errs {
		if err == nil {
			had++
		} else if !errors.Is(err, ErrInUse) {
			t.Errorf("%d: %v", i, err)
		}
		l.wantBridge(testNetwork(i), err == nil)
	}
	if had != 1 {
		t.Errorf("%d have it", had)
	}
}
