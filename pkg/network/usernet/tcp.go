package usernet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialTimeout bounds the wait for a server or a guest; Linux itself gives up
// after two minutes.
const dialTimeout = 30 * time.Second

// tcpForwarder sees the first packet of each connection of the guest. It holds
// as many of them as there may be connections: what is beyond is not answered,
// and comes again. The stack calls the handler in a goroutine of its own.
func (n *Network) tcpForwarder() *tcp.Forwarder {
	return tcp.NewForwarder(n.stack, bufferSize, maxStreams, func(r *tcp.ForwarderRequest) {
		if !n.begin() {
			r.Complete(true)
			return
		}
		defer n.wg.Done()
		if !n.streams.take() {
			r.Complete(true)
			return
		}
		defer n.streams.give()
		n.outboundTCP(r)
	})
}

// outboundTCP dials first and only then accepts, so that the guest sees whether
// there is anybody.
func (n *Network) outboundTCP(r *tcp.ForwarderRequest) {
	dst := local(r.ID())
	if dst == netip.AddrPortFrom(n.c.Gateway, dnsPort) {
		if c := n.accept(r); c != nil {
			defer c.end(n.ctx)
			n.serveNamesTCP(c)
		}
		return
	}
	out, err := n.dialTCP(dst)
	if err != nil {
		n.c.Log.Debug("connection of the guest refused", "to", dst, "err", err)
		// A server that does not answer gives no answer to the guest either.
		r.Complete(!errors.Is(err, context.DeadlineExceeded))
		return
	}
	defer out.Close()
	if c := n.accept(r); c != nil {
		n.relay(c, out)
	}
}

// accept completes the guest's connection; nil if that cannot be.
func (n *Network) accept(r *tcp.ForwarderRequest) *conn {
	if n.ctx.Err() != nil {
		r.Complete(true)
		return nil
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(false)
	if terr != nil {
		n.c.Log.Debug("accept connection of the guest", "err", terr)
		return nil
	}
	return newConn(&wq, ep)
}

var errDenied = errors.New("not reachable from a guest")

func (n *Network) dialTCP(dst netip.AddrPort) (*net.TCPConn, error) {
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

// stream is a TCP connection of either stack.
type stream interface {
	net.Conn
	CloseWrite() error
}

// relay copies both ways until both have ended, or one has failed. It ends
// the guest's connection; the caller closes the host's.
func (n *Network) relay(guest *conn, host *net.TCPConn) {
	defer guest.end(n.ctx)
	// Half a stream must not look like a whole one.
	fail := func() {
		reset(host)
		guest.abort()
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
