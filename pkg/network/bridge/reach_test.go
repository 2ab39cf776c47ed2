package bridge

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

// TestReach is the policy, with frames within a bridge going through the tables
// of IP and without.
func TestReach(t *testing.T) {
	for name, filtered := range map[string]bool{"bridge": false, "br_netfilter": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testReach(t, filtered)
		})
	}
}

func testReach(t *testing.T, filtered bool) {
	l := newLab(t)
	l.bridgeFilter(filtered)
	a, b, in := testNetwork(1), testNetwork(2), testNetwork(3)
	in.Internal = true
	ea := testEndpoint(a, 2)
	ea.NameServer = 5301
	ea.Forwards = []Forward{
		{"tcp", netip.MustParseAddrPort(hostLAN + ":8080"), 80}, {"udp", netip.MustParseAddrPort(hostLAN + ":8080"), 80},
		{"tcp", netip.MustParseAddrPort("0.0.0.0:8081"), 80}, {"udp", netip.MustParseAddrPort("0.0.0.0:8081"), 80},
		{"tcp", netip.MustParseAddrPort("[::]:8081"), 80}, {"udp", netip.MustParseAddrPort("[::]:8081"), 80},
		{"tcp", netip.MustParseAddrPort("[" + hostLAN6 + "]:8080"), 80}, {"udp", netip.MustParseAddrPort("[" + hostLAN6 + "]:8080"), 80},
	}
	ei := testEndpoint(in, 2)
	ei.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:8083"), 80}, {"udp", netip.MustParseAddrPort("0.0.0.0:8083"), 80}}
	a1, a2, b1 := l.guest(ea), l.guest(testEndpoint(a, 3)), l.guest(testEndpoint(b, 2))
	i1, i2 := l.guest(ei), l.guest(testEndpoint(in, 3))
	for _, at := range []string{"127.0.0.1:81", ":82", hostUp + ":83", "10.89.2.1:84", "10.89.1.1:5301", "[fd00:89:1::1]:5301"} {
		serve(l.host, at)
	}
	// The sockets of a supervisor: the host's own clients come there, and the guest
	// itself.
	serveAs(l.host, hostLAN+":8080", "socket ")
	serveAs(l.host, ":8081", "socket ")
	all := [][]reach{
		within(a1, a2, b1, i1, i2), outward(a1, i1), toHost(a1, a2, b1, i1), published(l.lan, a1, a2, b1, i1), inward(l),
	}
	check(t, slices.Concat(all...)...)
	if n := l.host.asks("tcp", "10.89.1.2:80", "10.89.1.1"); n != "10.89.1.1" {
		t.Errorf("the host itself is %q for a guest", n)
	}
}

func within(a1, a2, b1, i1, i2 *space) []reach {
	return []reach{
		{"same network", a1, "10.89.1.3:80", "10.89.1.2"},
		{"same network, IPv6", a2, "[fd00:89:1::2]:80", "fd00:89:1::3"},
		{"another network", a1, "10.89.2.2:80", ""},
		{"another network, IPv6", b1, "[fd00:89:1::2]:80", ""},
		{"internal, same network", i1, "10.89.3.3:80", "10.89.3.2"},
		{"internal to another", i2, "10.89.1.2:80", ""},
		{"another to internal", b1, "10.89.3.2:80", ""},
		{"another to internal, IPv6", b1, "[fd00:89:3::2]:80", ""},
	}
}

func outward(a1, i1 *space) []reach {
	return []reach{
		{"internet", a1, "198.51.100.9:80", hostUp},
		{"internet, IPv6", a1, "[fd00:1::1]:80", hostUp6},
		{"LAN", a1, client + ":80", hostLAN},
		{"metadata", a1, "169.254.169.254:80", ""},
		{"metadata of another", a1, "100.100.100.200:80", ""},
		{"metadata, IPv6", a1, "[fd00:ec2::254]:80", ""},
		{"internal to the internet", i1, "198.51.100.9:80", ""},
		{"internal to the internet, IPv6", i1, "[fd00:1::1]:80", ""},
	}
}

func toHost(a1, a2, b1, i1 *space) []reach {
	return []reach{
		{"gateway", a1, "10.89.1.1:82", "10.89.1.2"},
		{"gateway, IPv6", a1, "[fd00:89:1::1]:82", "fd00:89:1::2"},
		{"outward address", a1, hostUp + ":83", "10.89.1.2"},
		{"another's gateway", a1, "10.89.2.1:84", ""},
		{"another's gateway, all addresses", a1, "10.89.2.1:82", ""},
		{"another's gateway, IPv6", a1, "[fd00:89:2::1]:82", ""},
		{"internal to its gateway", i1, "10.89.3.1:82", "10.89.3.2"},
		{"internal to the host's other address", i1, hostUp + ":82", ""},
		{"name server", a1, "10.89.1.1:53", "10.89.1.2"},
		{"no name server", a2, "10.89.1.1:53", ""},
		{"another's name server", a2, "10.89.1.1:5301", ""},
		{"name server of another network", b1, "10.89.1.1:5301", ""},
		{"name server, IPv6", a1, "[fd00:89:1::1]:53", "fd00:89:1::2"},
		{"no name server, IPv6", a2, "[fd00:89:1::1]:53", ""},
		{"another's name server, IPv6", a2, "[fd00:89:1::1]:5301", ""},
		{"name server of another network, IPv6", b1, "[fd00:89:1::1]:5301", ""},
	}
}

func published(lan, a1, a2, b1, i1 *space) []reach {
	return []reach{
		{"published", lan, hostLAN + ":8080", client},
		{"published, IPv6", lan, "[" + hostLAN6 + "]:8080", client6},
		{"published on another address", lan, hostUp + ":8080", ""},
		{"published on all", lan, hostUp + ":8081", client},
		{"published on all, IPv6", lan, "[" + hostLAN6 + "]:8081", client6},
		{"published, from another network", b1, hostLAN + ":8080", "10.89.2.2"},
		{"published, from its own network", a2, hostLAN + ":8080", "10.89.1.1"},
		{"published, from its own network, IPv6", a2, "[" + hostLAN6 + "]:8080", "fd00:89:1::1"},
		{"published on all, at the gateway", a2, "10.89.1.1:8081", "10.89.1.1"},
		{"published, from itself", a1, hostLAN + ":8080", "socket 10.89.1.2"},
		{"published on all, from itself", a1, "10.89.1.1:8081", "socket 10.89.1.2"},
		{"published on all, from itself, IPv6", a1, "[fd00:89:1::1]:8081", "socket fd00:89:1::2"},
		{"published, from internal", i1, hostLAN + ":8080", ""},
		{"published by internal", lan, hostLAN + ":8083", ""},
	}
}

func inward(l *lab) []reach {
	return []reach{
		{"past what is published", l.lan, "10.89.1.2:80", ""},
		{"past what is published, IPv6", l.lan, "[fd00:89:1::2]:80", ""},
		{"into internal", l.lan, "10.89.3.2:80", ""},
		{"a gateway from the LAN", l.lan, "10.89.1.1:82", ""},
		{"a gateway from the LAN, IPv6", l.lan, "[fd00:89:1::1]:82", ""},
		{"a name server from the LAN", l.lan, "10.89.1.1:5301", ""},
		{"a name server from the LAN, IPv6", l.lan, "[fd00:89:1::1]:5301", ""},
		{"the host, as ever", l.lan, hostLAN + ":82", client},
		{"the LAN's router, as ever", l.lan, "198.51.100.9:80", client},
	}
}

// TestRejected is that a guest is told at once.
func TestRejected(t *testing.T) {
	l := newLab(t)
	g := l.guest(testEndpoint(testNetwork(1), 2))
	for _, to := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80"} {
		err := g.try(func() error {
			_, err := net.DialTimeout("tcp", to, limit)
			return err
		})
		if e, ok := err.(net.Error); !ok || e.Timeout() {
			t.Errorf("%s: %v, want a refusal", to, err)
		}
	}
}
