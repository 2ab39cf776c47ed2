package usernet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
)

// Echo requests of the guest (RFC 792, RFC 4443) are flows, as datagrams of UDP are:
// each is the messages of one identifier to one address. At the far end, a socket of
// the host or the network of another guest has an identifier of its own. Those of
// another guest to this one are too; the stack, which would know one flow of an
// identifier only, whoever asks, is in neither.

// icmpKind is ICMP in one family of addresses. Both have the same first eight bytes:
// type, code, checksum, and of an echo its identifier and sequence number.
type icmpKind struct {
	transport                   tcpip.TransportProtocolNumber
	network                     tcpip.NetworkProtocolNumber
	request, reply, unreachable byte // types
	prohibited, noHost          byte // codes of unreachable
	family, proto               int  // of the kernel's sockets
}

const (
	icmpHeader = 8
	icmpSum    = 2 // offsets in it
	icmpIdent  = 4
)

func icmpFor(a netip.Addr) icmpKind {
	if a.Is4() {
		return icmpKind{
			transport: icmp.ProtocolNumber4, network: ipv4.ProtocolNumber,
			request: byte(header.ICMPv4Echo), reply: byte(header.ICMPv4EchoReply), unreachable: byte(header.ICMPv4DstUnreachable),
			prohibited: byte(header.ICMPv4AdminProhibited), noHost: byte(header.ICMPv4HostUnreachable),
			family: unix.AF_INET, proto: unix.IPPROTO_ICMP,
		}
	}
	return icmpKind{
		transport: icmp.ProtocolNumber6, network: ipv6.ProtocolNumber,
		request: byte(header.ICMPv6EchoRequest), reply: byte(header.ICMPv6EchoReply), unreachable: byte(header.ICMPv6DstUnreachable),
		prohibited: byte(header.ICMPv6Prohibited), noHost: byte(header.ICMPv6AddressUnreachable),
		family: unix.AF_INET6, proto: unix.IPPROTO_ICMPV6,
	}
}

const (
	echoQueue = 16      // messages of the guest, of a flow, that wait for its far end
	echoRoom  = 1 << 20 // bytes of all that wait
)

// pings are the flows of echo requests.
type pings struct {
	room *semaphore.Weighted

	mu  sync.Mutex
	all map[pingKey]*echoes
}

type pingKey struct {
	other  netip.Addr // than the guest
	ident  uint16     // as the guest sees it
	inward bool       // the other asks
}

func newPings() pings {
	return pings{room: semaphore.NewWeighted(echoRoom), all: map[pingKey]*echoes{}}
}

// add gives a request to its flow, or loses it where too many wait. It returns the
// flow if there was none before.
func (p *pings) add(n *Network, k pingKey, message []byte) (fresh *echoes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all[k] == nil {
		fresh = p.open(n, k)
	}
	p.put(p.all[k], message)
	return fresh
}

// answer gives an answer of the guest to the flow that it is of, if there is one.
func (p *pings) answer(k pingKey, message []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.all[k]; e != nil {
		p.put(e, message)
	}
}

// ask makes a flow to the guest, under an identifier that no other one has.
func (p *pings) ask(n *Network, from netip.Addr) (*echoes, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := uint16(rand.Uint32())
	for i := range 1 << 16 {
		k := pingKey{from, first + uint16(i), true}
		if p.all[k] == nil {
			return p.open(n, k), nil
		}
	}
	return nil, fmt.Errorf("ping from %s: no identifier is left", from)
}

// open makes a flow; p is locked.
func (p *pings) open(n *Network, k pingKey) *echoes {
	e := &echoes{n: n, key: k, messages: make(chan []byte, echoQueue), done: make(chan struct{})}
	p.all[k] = e
	return e
}

// put adds a message to those that wait; p is locked.
func (p *pings) put(e *echoes, message []byte) {
	size := int64(len(message))
	if !p.room.TryAcquire(size) {
		return
	}
	select {
	case e.messages <- message:
	default:
		p.room.Release(size)
	}
}

// remove forgets a flow and what waits for it; nothing is added to it any more.
func (p *pings) remove(e *echoes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, e.key)
	for {
		select {
		case b := <-e.messages:
			p.room.Release(int64(len(b)))
		default:
			return
		}
	}
}

// outboundPing sees the ICMP messages of the guest that nothing in the stack is for.
// It takes answers, and echo requests to others than the gateway, for which the stack
// answers.
func (n *Network) outboundPing(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := pkt.TransportHeader().Slice()
	to := fromAddress(id.LocalAddress)
	kind := icmpFor(to)
	if len(h) < icmpHeader || h[0] != kind.reply && h[0] != kind.request || n.policy.isGateway(to) {
		return false
	}
	// The far end would have a right one. That of IPv6 is looked at by the stack.
	if to.Is4() && checksum.Checksum(h, pkt.Data().Checksum()) != 0xffff {
		return true
	}
	if to.IsMulticast() || to == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true // about which no error is sent: RFC 1122, section 3.2.2
	}
	message, ident := slices.Concat(h, pkt.Data().AsRange().ToSlice()), binary.BigEndian.Uint16(h[icmpIdent:])
	if h[0] == kind.reply {
		n.pings.answer(pingKey{to, ident, true}, message)
		return true
	}
	quote := slices.Concat(pkt.NetworkHeader().Slice(), h)
	dial := n.pingDialer(id)
	if dial == nil {
		n.unreachable(to, kind.prohibited, quote)
		return true
	}
	e := n.pings.add(n, pingKey{to, ident, false}, message)
	if e == nil {
		return true
	}
	if !n.begin() {
		e.Close()
		return true
	}
	go func() {
		defer n.wg.Done()
		n.carry(e, netip.AddrPortFrom(to, 0), func(ctx context.Context) (relay.Socket, error) {
			far, err := dial(ctx)
			if err != nil && ctx.Err() == nil { // else the flow has made room for another one
				n.unreachable(to, kind.reason(err), quote)
			}
			return far, err
		})
	}()
	return true
}

// reason is how a guest is told that a flow was not opened.
func (k icmpKind) reason(err error) byte {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return k.prohibited
	}
	return k.noHost
}

// pingDialer is the way of echo requests. The ports of id are their identifier, and
// nobody's.
func (n *Network) pingDialer(id stack.TransportEndpointID) dialer {
	peer := func(ctx context.Context) (relay.Socket, error) {
		return n.c.Peers.DialPing(ctx, remote(id).Addr(), local(id).Addr())
	}
	return n.wayOf(id, peer, func(to netip.AddrPort) dialer {
		return func(context.Context) (relay.Socket, error) { return dialPing(n.reroute(to).Addr()) }
	})
}

// dialPing opens a socket for echo requests to an address, which needs no privilege
// but a group in net.ipv4.ping_group_range, for IPv6 too; else it is EACCES. The kernel
// chooses the identifier, and gives the socket the answers to it only (icmp(7),
// "ICMP datagram sockets").
func dialPing(to netip.Addr) (relay.Socket, error) {
	if !to.IsValid() {
		return nil, errors.New("ping: no address")
	}
	fd, err := openPing(icmpFor(to))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	if err := unix.Connect(fd, socketAddress(to)); err != nil {
		return nil, fmt.Errorf("ping %s: %w", to, err)
	}
	c, err := net.FileConn(f) // a connected socket of datagrams is one of UDP to package net
	if err != nil {
		return nil, err
	}
	return relay.UDP{UDPConn: c.(*net.UDPConn)}, nil
}

func openPing(k icmpKind) (fd int, err error) {
	fd, err = unix.Socket(k.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, k.proto)
	if err != nil {
		return -1, fmt.Errorf("open socket for ping: %w", err)
	}
	return fd, nil
}

// CanPing returns why guests of this process cannot ping other hosts; nil if they can.
func CanPing() error {
	fd, err := openPing(icmpFor(netip.IPv4Unspecified()))
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func socketAddress(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// echoes are the guest's end of a flow: a relay.Socket whose messages are ICMP's,
// from the type on.
type echoes struct {
	n        *Network
	key      pingKey
	messages chan []byte // of the guest
	done     chan struct{}
	once     sync.Once
}

// Receive implements relay.Socket.
func (e *echoes) Receive(until time.Time, _ *relay.Buffers, f func([]byte) error) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case b := <-e.messages:
		e.n.pings.room.Release(int64(len(b)))
		return f(b)
	case <-e.done:
		return net.ErrClosed
	case <-e.n.ctx.Done():
		return net.ErrClosed
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

// Write answers the guest, or asks it. What is neither is lost: the far end may send
// anything.
func (e *echoes) Write(b []byte) (int, error) {
	kind := icmpFor(e.key.other)
	want := kind.reply
	if e.key.inward {
		want = kind.request
	}
	if len(b) < icmpHeader || b[0] != want || b[1] != 0 {
		return len(b), nil
	}
	message := bytes.Clone(b)
	binary.BigEndian.PutUint16(message[icmpIdent:], e.key.ident)
	return len(b), e.n.sendICMP(e.key.other, message)
}

// Close ends the flow. Idempotent.
func (e *echoes) Close() error {
	e.once.Do(func() {
		e.n.pings.remove(e)
		close(e.done)
	})
	return nil
}

// unreachable tells the guest, in the name of the gateway, that a packet to an address
// did not arrive, of which quote is the header and eight bytes more: RFC 792, and of
// RFC 4443 the least.
func (n *Network) unreachable(to netip.Addr, why byte, quote []byte) {
	s, _ := n.policy.side(to)
	message := make([]byte, icmpHeader, icmpHeader+len(quote))
	message[0], message[1] = icmpFor(to).unreachable, why
	if err := n.sendICMP(s.gateway, append(message, quote...)); err != nil {
		n.c.Log.Debug("tell the guest of an unreachable host", "err", err)
	}
}

// sendICMP sends the guest a message, whose checksum it sets.
func (n *Network) sendICMP(from netip.Addr, message []byte) error {
	to, err := n.guestFor(from, 0)
	if err != nil {
		return err
	}
	kind := icmpFor(from)
	route, terr := n.stack.FindRoute(nic, address(from), address(to.Addr()), kind.network, false)
	if terr != nil {
		return errors.New(terr.String())
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: icmpHeader + int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(message[icmpHeader:]),
	})
	defer pkt.DecRef()
	h := pkt.TransportHeader().Push(icmpHeader)
	copy(h, message)
	binary.BigEndian.PutUint16(h[icmpSum:], 0)
	sum := checksum.Checksum(h, pkt.Data().Checksum())
	if from.Is6() { // RFC 8200, section 8.1
		sum = checksum.Combine(sum, header.PseudoHeaderChecksum(kind.transport, address(from), address(to.Addr()), uint16(len(message))))
	}
	binary.BigEndian.PutUint16(h[icmpSum:], ^sum)
	pkt.TransportProtocolNumber = kind.transport
	if terr := route.WritePacket(stack.NetworkHeaderParams{Protocol: kind.transport, TTL: route.DefaultTTL()}, pkt); terr != nil {
		return errors.New(terr.String())
	}
	return nil
}

// pingFrom opens a flow of echo requests to the guest from an address.
func (n *Network) pingFrom(from netip.Addr) (relay.Socket, error) {
	if _, err := n.guestFor(from, 0); err != nil {
		return nil, err
	}
	e, err := n.pings.ask(n, from)
	if err != nil {
		return nil, err
	}
	return e, nil
}
