package usernet

import (
	"context"
	"net/netip"

	"github.com/micropod/micropod/pkg/network/relay"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Peers reach the other guests of a network. from is the guest that connects, to
// an address of its network: the error of one that nobody has says that it is
// refused. ctx bounds the call only.
type Peers interface {
	DialTCP(ctx context.Context, from, to netip.AddrPort) (relay.Stream, error)
	DialUDP(ctx context.Context, from, to netip.AddrPort) (relay.Socket, error)
	// DialPing opens a flow whose messages are ICMP's (RFC 792; RFC 4443 between
	// IPv6 addresses), from the type on: echo requests one way, the answers the
	// other, under any identifier.
	DialPing(ctx context.Context, from, to netip.Addr) (relay.Socket, error)
}

// peer reports whether an address is one that another guest of the network may
// have.
func (p policy) peer(a netip.Addr) bool {
	s, ok := p.side(a)
	return ok && s.guest.Contains(a) && a != s.guest.Addr() && a != s.gateway
}

// reachesPeers reports whether the guest may talk to others of its network. One
// that says to be somebody else is none of it.
func (n *Network) reachesPeers(id stack.TransportEndpointID) bool {
	s, ok := n.policy.side(local(id).Addr())
	return n.c.Peers != nil && ok && remote(id).Addr() == s.guest.Addr()
}

// dialPeer connects to another guest.
func (n *Network) dialPeer(id stack.TransportEndpointID) (relay.Stream, error) {
	if !n.reachesPeers(id) {
		return nil, errDenied
	}
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	return n.c.Peers.DialTCP(ctx, remote(id), local(id))
}

// FromPeers reaches the guest for the others of its network, which it sees by
// their own addresses: a peer.Guest.
func (n *Network) FromPeers() Inward { return Inward{n} }

// Inward is the way of other guests to a guest.
type Inward struct{ n *Network }

// DialTCP connects another guest to this one.
func (i Inward) DialTCP(ctx context.Context, from netip.AddrPort, port uint16) (relay.Stream, error) {
	return i.n.streamTo(ctx, from, port)
}

// DialUDP opens a flow of another guest to this one.
func (i Inward) DialUDP(_ context.Context, from netip.AddrPort, port uint16) (relay.Socket, error) {
	return i.n.flowTo(from, port)
}

// DialPing opens a flow of another guest's echo requests to this one.
func (i Inward) DialPing(_ context.Context, from netip.Addr) (relay.Socket, error) {
	return i.n.pingFrom(from)
}
