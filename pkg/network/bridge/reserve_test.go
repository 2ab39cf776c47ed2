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
	if err := reserve(Network{ID: "x"}); err == nil {
		t.Error("an id that is none")
	}
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
