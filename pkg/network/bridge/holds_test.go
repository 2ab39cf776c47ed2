package bridge

import (
	"net/netip"
	"testing"
)

// The host itself reaches guests (TestReach), so who connects for others must know
// which addresses those are.
func TestHolds(t *testing.T) {
	l := newLab(t)
	n := testNetwork(1)
	n.Internal = true
	guest := testEndpoint(n, 2).Address.Addr()
	holds := func(a netip.Addr) (yes bool) {
		l.host.do(func() error { yes = Holds(a); return nil })
		return yes
	}
	if holds(guest) {
		t.Error("before anything is there")
	}
	l.guest(testEndpoint(n, 2))
	for addr, want := range map[string]bool{
		guest.String(): true, "::ffff:" + guest.String(): true, "10.89.1.1": true, "10.89.1.77": true, "fd00:89:1::2": true,
		"10.89.2.2": false, hostUp: false, client: false, internet: false, "198.51.100.9": false,
	} {
		if got := holds(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}
