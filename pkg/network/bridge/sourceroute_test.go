package bridge

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSourceRoute is a packet whose way the guest chose (RFC 791, 3.1): it is to the
// gateway, as far as the chains see, and leaves for where none may go.
func TestSourceRoute(t *testing.T) {
	l := newLab(t)
	for _, dev := range []string{"all", "default"} {
		l.host.sysctl("ipv4/conf/"+dev+"/accept_source_route", "1")
	}
	e := testEndpoint(testNetwork(1), 2)
	g := l.guest(e)
	up, in := l.internet.wire("eth0"), g.wire("eth0")
	options := append([]byte{131, 7, 4}, netip.MustParseAddr("169.254.169.254").AsSlice()...)
	packet := ip4Options("10.89.1.2", "10.89.1.1", append(options, 0), udpHeader(9, 9, "routed"))
	in.send(ether(l.h.mac(e.Network.Device()).String(), mac2, unix.ETH_P_IP, packet))
	if _, found := up.came("routed"); found {
		t.Error("a guest sends to a denied address by way of its gateway")
	}
}
