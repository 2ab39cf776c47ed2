package usernet

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/network/relay"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// silent is a peer whose supervisor does nothing.
type silent struct{ asked chan struct{} }

func (s silent) wait(ctx context.Context) error {
	s.asked <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (s silent) DialTCP(ctx context.Context, _, _ netip.AddrPort) (relay.Stream, error) {
	return nil, s.wait(ctx)
}

func (s silent) DialUDP(ctx context.Context, _, _ netip.AddrPort) (relay.Socket, error) {
	return nil, s.wait(ctx)
}

func (s silent) DialPing(ctx context.Context, _, _ netip.Addr) (relay.Socket, error) {
	return nil, s.wait(ctx)
}

// Those who wait for a peer that stalls count, and end with the network.
func TestPeerStalls(t *testing.T) {
	peers := silent{make(chan struct{}, 9000)}
	n, err := New(func() Config { c := with6(Config{}); c.Peers = peers; return c }())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	flows := n.limits.flows + 50
	for i := range flows {
		to := []string{"10.0.2.77", "fd66::77"}[i/2%2]
		frame := sent{proto: header.UDPProtocolNumber, dst: to, port: uint16(1000 + i), payload: []byte("x")}.bytes()
		if i%2 == 0 {
			frame = echoTo(to, uint16(i), 1, nil)
		}
		guest.Write(frame)
		<-peers.asked
	}
	guest.Write(sent{proto: header.TCPProtocolNumber, dst: "10.0.2.77", port: 80}.bytes())
	<-peers.asked
	if got := n.flows.Len(); got != n.limits.flows {
		t.Errorf("%d flows, want %d", got, n.limits.flows)
	}
	n.Close()
	if got := n.flows.Len(); got != 0 {
		t.Errorf("%d flows are left", got)
	}
	if got := len(n.pings.all); got != 0 {
		t.Errorf("%d flows of ping are left", got)
	}
}

// Packets of a guest that says to be another one go nowhere.
func TestForgedPeer(t *testing.T) {
	n, err := New(func() Config { c := with6(Config{}); c.Peers = &neighbours{}; return c }())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for to, from := range map[string]string{"10.0.2.77": "10.0.2.78", "fd66::77": "fd66::78"} {
		id := stack.TransportEndpointID{
			LocalAddress: address(netip.MustParseAddr(to)), LocalPort: 80,
			RemoteAddress: address(netip.MustParseAddr(from)), RemotePort: 5000,
		}
		if _, err := n.dialPeer(id); !errors.Is(err, errDenied) {
			t.Errorf("TCP to %s: %v", to, err)
		}
		if n.flowDialer(id) != nil {
			t.Errorf("UDP to %s", to)
		}
		if n.pingDialer(id) != nil {
			t.Errorf("ping to %s", to)
		}
	}
}

// A guest with neighbours hears of them by ARP, and still not of itself or others.
func TestARPOfPeers(t *testing.T) {
	c := with(Config{})
	c.Peers = &neighbours{}
	admits := newFilter(c).admits
	for target, want := range map[string]bool{
		"10.0.2.77": true, "10.0.2.2": true, "10.0.2.15": false, "10.0.3.1": false, "198.51.100.7": false, "0.0.0.0": false,
	} {
		if got := admits(arpFrame(1, "10.0.2.15", target)); got != want {
			t.Errorf("who has %s: %v", target, got)
		}
	}
}

func TestPeerAddresses(t *testing.T) {
	p := policy{sides: with6(Config{}).sides()}
	var got []string
	for _, a := range []string{"10.0.2.15", "10.0.2.2", "10.0.2.77", "::ffff:10.0.2.77", "10.0.3.77", "127.0.0.1", "fe80::1", "10.0.2.0", "10.0.2.255", "fd66::15", "fd66::2", "fd66::77", "fd67::77"} {
		if p.peer(netip.MustParseAddr(a)) {
			got = append(got, a)
		}
	}
	if want := []string{"10.0.2.77", "10.0.2.0", "10.0.2.255", "fd66::77"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
