package usernet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sync/semaphore"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// bufferSize bounds what the stack keeps of one connection, each way, in
	// bytes: a guest may have limits.streams of them, and take nothing.
	bufferSize = 256 << 10
	// wideBuffer is what the stack keeps, in bytes, of what the guest has sent by
	// one of the few connections that move much. Half of a buffer is the window: in
	// that of a usual one are two large frames, so the guest waits for an answer to
	// each, and has each answered twice. The window can grow that far since its scale,
	// which is of the handshake, is that of bufferSize rounded up.
	wideBuffer = 1 << 20
	// wideAfter is how many bytes the guest has sent by then.
	wideAfter = 1 << 20
	// lingerTime is how long a connection that has ended on our side may take to
	// end on the guest's. Until then it counts as one.
	lingerTime = 30 * time.Second
	// timeWait is how long a connection that we ended first keeps its place: the
	// stack drops whoever comes from the same port, as it has no listener, and
	// keeps any number of them. No link with two ends delivers what is old.
	timeWait = 100 * time.Millisecond
	// userTimeout ends a connection whose peer takes nothing of what was sent,
	// whatever else it says.
	userTimeout = 5 * time.Minute
	// keepAlive finds out that the other side has gone.
	keepAlive = 2 * time.Minute
)

// conn is a TCP connection of the guest, seen from here: a relay.Stream.
type conn struct {
	*gonet.TCPConn
	ep  tcpip.Endpoint
	wq  *waiter.Queue
	ctx context.Context // the network's

	wide *semaphore.Weighted // the network's
	got  int                 // of the guest, in bytes: the reader's
	// widened says that the connection has one of wide's places.
	widened atomic.Bool
}

func (n *Network) newConn(wq *waiter.Queue, ep tcpip.Endpoint) *conn {
	ep.SocketOptions().SetKeepAlive(true)
	idle, user := tcpip.KeepaliveIdleOption(keepAlive), tcpip.TCPUserTimeoutOption(userTimeout)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&user)
	return &conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep, wq: wq, ctx: n.ctx, wide: n.wide}
}

// Read implements relay.Stream. One goroutine reads.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.got += n
	if n > 0 && c.got >= wideAfter && !c.widened.Load() && c.wide.TryAcquire(1) {
		c.widened.Store(true)
		c.ep.SocketOptions().SetReceiveBufferSize(wideBuffer, true)
	}
	return n, err
}

// Reset ends the connection by a reset.
func (c *conn) Reset() { c.ep.Abort() }

// Close closes the connection and returns when the stack has no more of it. A
// guest that does not let it end, by taking nothing, gets a reset.
func (c *conn) Close() error {
	defer c.release()
	entry, gone := waiter.NewChannelEntry(waiter.EventHUp)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	err := c.TCPConn.Close()
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	for !c.over() {
		select {
		case <-gone:
		case <-timer.C:
			c.ep.Abort()
			return err
		case <-c.ctx.Done():
			c.ep.Abort()
			return err
		}
	}
	return err
}

// release gives up the place of a connection that moves much.
func (c *conn) release() {
	if c.widened.CompareAndSwap(true, false) {
		c.wide.Release(1)
	}
}

// over reports whether nothing more is kept for the peer.
func (c *conn) over() bool {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
		return true
	}
	return false
}

// DialTCP connects a client of a published port to the guest, under the
// client's own address and port where that can be.
func (n *Network) DialTCP(ctx context.Context, client netip.AddrPort, port uint16) (relay.Stream, error) {
	return n.streamTo(ctx, n.policy.source(client), port)
}

// guestFor is a port of the guest, for somebody who has an address.
func (n *Network) guestFor(from netip.Addr, port uint16) (netip.AddrPort, error) {
	s, ok := n.policy.side(from)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("the guest has no address for %s", from)
	}
	return netip.AddrPortFrom(s.guest.Addr(), port), nil
}

// streamTo connects to the guest from an address, if need be from another port.
func (n *Network) streamTo(ctx context.Context, from netip.AddrPort, port uint16) (relay.Stream, error) {
	to, err := n.guestFor(from.Addr(), port)
	if err != nil {
		return nil, err
	}
	c, err := n.connect(ctx, from, to)
	if errors.Is(err, errInUse) {
		// Another connection of the client has it, to another port.
		c, err = n.connect(ctx, netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

var errInUse = errors.New("address in use")

func (n *Network) connect(ctx context.Context, from, to netip.AddrPort) (*conn, error) {
	var wq waiter.Queue
	ep, terr := n.stack.NewEndpoint(tcp.ProtocolNumber, protocol(to.Addr()), &wq)
	if terr != nil {
		return nil, errors.New(terr.String())
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if terr := ep.Bind(full(from)); terr != nil {
		ep.Close()
		if _, ok := terr.(*tcpip.ErrPortInUse); ok {
			return nil, errInUse
		}
		return nil, errors.New(terr.String())
	}
	terr = ep.Connect(full(to))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			return nil, ctx.Err()
		}
	}
	if terr != nil {
		ep.Close()
		return nil, errors.New(terr.String())
	}
	return n.newConn(&wq, ep), nil
}
