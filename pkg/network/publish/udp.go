package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// maxDatagram is the largest payload of UDP.
const maxDatagram = 65507

// maxControl is room for what the kernel says of a datagram.
const maxControl = 128

// packets is a published UDP port.
type packets struct {
	*net.UDPConn
	mu    sync.Mutex
	peers map[peer]*peerFlow
}

// peer is a client, and the address of the host that it talks to.
type peer struct {
	client netip.AddrPort
	local  netip.Addr // invalid where the socket has one address only
}

// peerFlow is what carries the datagrams of a peer.
type peerFlow struct {
	*relay.Flow
	guest relay.Socket
}

// newPackets asks for the address that each datagram was sent to, if the socket
// has more than one: the answer must come from there.
func newPackets(c *net.UDPConn) (*packets, error) {
	p := &packets{UDPConn: c, peers: map[peer]*peerFlow{}}
	at, err := netip.ParseAddrPort(c.LocalAddr().String())
	switch {
	case err != nil || !at.Addr().IsUnspecified():
		return p, err
	case at.Addr().Is4():
		return p, ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true)
	}
	return p, ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true)
}

// serve keeps one flow to the guest for each peer.
func (c *packets) serve(s *Server, d Dialer, port uint16) {
	buf, control := make([]byte, maxDatagram), make([]byte, maxControl)
	for {
		k, n, _, client, err := c.ReadMsgUDPAddrPort(buf, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !relay.Wait(s.ctx, firstPause) {
				return
			}
			continue
		}
		from := peer{client, sentTo(control[:n])}
		f := c.flow(from)
		if f == nil {
			if f = c.open(s, d, from, port); f == nil {
				continue
			}
		}
		f.Moved(false)
		f.guest.Write(buf[:k]) // lost, as datagrams are
	}
}

// sentTo is the address in the kernel's words about a datagram; invalid if they
// have none, or one that cannot answer.
func sentTo(control []byte) netip.Addr {
	var dst net.IP
	var m4 ipv4.ControlMessage
	var m6 ipv6.ControlMessage
	if m4.Parse(control) == nil && m4.Dst != nil {
		dst = m4.Dst
	} else if m6.Parse(control) == nil {
		dst = m6.Dst
	}
	a, _ := netip.AddrFromSlice(dst)
	if a = a.Unmap(); a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}
	}
	return a
}

// flow is that of a peer, nil for a new one.
func (c *packets) flow(from peer) *peerFlow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers[from]
}

// open makes a flow to the guest, and copies its answers to the client.
func (c *packets) open(s *Server, d Dialer, from peer, port uint16) *peerFlow {
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	guest, err := d.DialUDP(ctx, from.client, port)
	if err != nil {
		s.log.Debug("client of a published port", "from", from.client, "err", err)
		return nil
	}
	f := &peerFlow{guest: guest}
	c.mu.Lock()
	c.peers[from] = f // before it can end
	c.mu.Unlock()
	f.Flow = s.flows.Open(port, func() {
		guest.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.peers[from] == f {
			delete(c.peers, from)
		}
	})
	s.wg.Go(func() { f.Copy(s.ctx, answers{c.UDPConn, from}, guest, true) })
	return f
}

// answers are what a peer gets.
type answers struct {
	c  *net.UDPConn
	to peer
}

// Write sends a datagram from the address that the peer asked.
func (a answers) Write(b []byte) (int, error) {
	n, _, err := a.c.WriteMsgUDPAddrPort(b, a.source(), a.to.client)
	if err != nil && a.to.local.IsValid() {
		// A broadcast is an address that nobody can send from.
		n, _, err = a.c.WriteMsgUDPAddrPort(b, nil, a.to.client)
	}
	return n, err
}

// source tells the kernel the address to send from.
func (a answers) source() []byte {
	ip := net.IP(a.to.local.AsSlice())
	switch {
	case !a.to.local.IsValid():
		return nil
	case a.to.local.Is4(): // on a socket of IPv6 too
		return (&ipv4.ControlMessage{Src: ip}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: ip}).Marshal()
}
