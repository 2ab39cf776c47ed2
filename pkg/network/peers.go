package network

import (
	"context"
	"net/netip"

	"github.com/micropod/micropod/pkg/network/peer"
	"github.com/micropod/micropod/pkg/network/relay"
)

// FindPeer finds the socket for peers of the VM that has an address in a network
// and runs; false if there is none. It is called for each connection, from several
// goroutines.
type FindPeer func(network string, addr netip.Addr) (socket string, ok bool)

// peers are the other guests of a network: a usernet.Peers.
type peers struct {
	network string
	find    FindPeer
}

// DialTCP connects a guest to another one.
func (p peers) DialTCP(ctx context.Context, from, to netip.AddrPort) (relay.Stream, error) {
	socket, ok := p.find(p.network, to.Addr())
	if !ok {
		return nil, peer.ErrRefused
	}
	return peer.DialTCP(ctx, socket, peer.Request{Network: p.network, From: from, To: to})
}

// DialPing opens a flow of echo requests of a guest to another one.
func (p peers) DialPing(ctx context.Context, from, to netip.Addr) (relay.Socket, error) {
	socket, ok := p.find(p.network, to)
	if !ok {
		return nil, peer.ErrRefused
	}
	return peer.DialPing(ctx, socket, peer.Request{Network: p.network, From: netip.AddrPortFrom(from, 0), To: netip.AddrPortFrom(to, 0)})
}

// DialUDP opens a flow of a guest to another one.
func (p peers) DialUDP(ctx context.Context, from, to netip.AddrPort) (relay.Socket, error) {
	socket, ok := p.find(p.network, to.Addr())
	if !ok {
		return nil, peer.ErrRefused
	}
	return peer.DialUDP(ctx, socket, peer.Request{Network: p.network, From: from, To: to})
}
