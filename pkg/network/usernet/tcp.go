package usernet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// dialTimeout bounds the wait for a server or a guest; Linux itself gives
	// up after two minutes.
	dialTimeout = 30 * time.Second
	// keepAlive finds out that the other side has gone.
	keepAlive = 2 * time.Minute
)

// tcpForwarder sees the first packet of each connection of the guest. It holds
// as many of them as there may be connections: what is beyond is not answered,
// and comes again.
func (n *Network) tcpForwarder() *tcp.Forwarder {
	return tcp.NewForwarder(n.stack, 0, maxStreams, func(r *tcp.ForwarderRequest) {
		if !n.streams.take() {
			r.Complete(true)
			return
		}
		n.wg.Go(func() {
			defer n.streams.give()
			n.outboundTCP(r)
		})
	})
}

// outboundTCP dials first and only then accepts, so that the guest sees whether
// there is anybody.
func (n *Network) outboundTCP(r *tcp.ForwarderRequest) {
	out, err := n.dialTCP(local(r.ID()))
	if err != nil {
		n.c.Log.Debug("connection of the guest refused", "to", local(r.ID()), "err", err)
		// A server that does not answer gives no answer to the guest either.
		r.Complete(!errors.Is(err, context.DeadlineExceeded))
		return
	}
	defer out.Close()
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(false)
	if terr != nil {
		n.c.Log.Debug("accept connection of the guest", "err", terr)
		return
	}
	watch(ep)
	n.relay(gonet.NewTCPConn(&wq, ep), out, ep.Abort)
}

var errDenied = errors.New("not reachable from a guest")

func (n *Network) dialTCP(dst netip.AddrPort) (*net.TCPConn, error) {
	if dst == netip.AddrPortFrom(n.c.Gateway, dnsPort) {
		return n.dialResolver()
	}
	to, ok := n.policy.target(dst)
	if !ok {
		return nil, errDenied
	}
	return n.dialHost(to)
}

func (n *Network) dialHost(to netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	d := net.Dialer{KeepAlive: keepAlive}
	c, err := d.DialContext(ctx, "tcp", n.reroute(to).String())
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	return c.(*net.TCPConn), nil
}

// dialGuest connects a client of a published port to the guest, under the
// client's own address where that can be.
func (n *Network) dialGuest(client netip.AddrPort, port uint16) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	guest := netip.AddrPortFrom(n.c.Guest.Addr(), port)
	from := n.policy.source(client)
	return gonet.DialTCPWithBind(ctx, n.stack, full(from), full(guest), protocol(n.c.Gateway))
}

// watch lets the stack find out that a guest's end has gone silently.
func watch(ep tcpip.Endpoint) {
	ep.SocketOptions().SetKeepAlive(true)
	idle := tcpip.KeepaliveIdleOption(keepAlive)
	ep.SetSockOpt(&idle)
}

// stream is a TCP connection of either stack.
type stream interface {
	net.Conn
	CloseWrite() error
}

// relay copies both ways until both have ended, or one has failed. It closes
// the guest's end; the caller closes the host's.
func (n *Network) relay(guest *gonet.TCPConn, host *net.TCPConn, abort func()) {
	defer guest.Close()
	// Half a stream must not look like a whole one.
	fail := func() {
		reset(host)
		abort()
	}
	stop := context.AfterFunc(n.ctx, fail)
	defer stop()
	done := make(chan error, 2)
	go func() { done <- oneWay(host, guest) }()
	go func() { done <- oneWay(guest, host) }()
	if err := <-done; err != nil {
		fail()
	}
	if err := <-done; err != nil {
		fail()
	}
}

func oneWay(dst, src stream) error {
	_, err := io.Copy(plainWriter{dst}, plainReader{src})
	if err != nil {
		return err
	}
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return err
	}
	return nil
}

// plainReader and plainWriter hide what io.Copy would use instead of a buffer.
type (
	plainReader struct{ io.Reader }
	plainWriter struct{ io.Writer }
)

// reset closes a connection in a way that its peer cannot take for its end.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// local is what the guest meant to reach; the stack speaks in its place.
func local(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(fromAddress(id.LocalAddress), id.LocalPort)
}
