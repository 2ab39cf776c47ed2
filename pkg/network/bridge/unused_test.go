package bridge

import (
	"net/netip"
	"strings"
	"testing"
)

// TestUsedSubnet is a network in which the host is already, and one that is a part
// of another network of the host.
func TestUsedSubnet(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	for name, change := range map[string]func(*Endpoint){
		"192.0.2.1/24": func(e *Endpoint) {
			resubnet(e, "192.0.2.0/24")
			e.Address = netip.MustParsePrefix("192.0.2.7/24")
		},
		"fd00:2::1/64": func(e *Endpoint) {
			e.Network.Subnet6, e.Network.Gateway6 = netip.MustParsePrefix("fd00:2::/64"), netip.MustParseAddr("fd00:2::9")
			e.Address6 = netip.MustParsePrefix("fd00:2::7/64")
		},
	} {
		e := testEndpoint(testNetwork(1), 2)
		change(&e)
		l.host.do(func() error {
			if err := l.h.Join(e); err == nil || !strings.Contains(err.Error(), "device lan0 has the address "+name) {
				t.Errorf("%s: %v", name, err)
			}
			return nil
		})
		l.wantSnapshot("after "+name, before)
	}
	l.host.run("ip address add 10.1.2.3/8 dev lan0")
	check(t, reach{"part of a larger network", l.guest(testEndpoint(testNetwork(1), 2)), "198.51.100.9:80", hostUp})
}
