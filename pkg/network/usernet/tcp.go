package usernet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
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
	return tcp.NewForwarder(n.stack, bufferSize, n.limits.streams, func(r *tcp.ForwarderRequest) {
		if !n.begin() {
			r.Complete(true)
			return
		}
		defer n.wg.Done()
		if !n.streams.TryAcquire(1) {
			r.Complete(true)
			return
		}
		defer n.streams.Release(1)
		n.outboundTCP(r)
	})
}

// outboundTCP dials first and only then accepts, so that the guest sees whether
// there is anybody.
func (n *Network) outboundTCP(r *tcp.ForwarderRequest) {
	dst := local(r.ID())
	if dst.Port() == dnsPort && n.policy.isGateway(dst.Addr()) {
		if c := n.accept(r); c != nil {
			n.c.Names.ServeConn(n.ctx, c)
		}
		return
	}
	out, err := n.dialOut(r.ID())
	if err != nil {
		n.c.Log.Debug("connection of the guest refused", "to", dst, "err", err)
		// A server that does not answer gives no answer to the guest either.
		r.Complete(!errors.Is(err, context.DeadlineExceeded))
		return
	}
	c := n.accept(r)
	if c == nil {
		out.Reset()
		return
	}
	relay.Streams(n.ctx, c, out)
}

// dialOut connects to whom the guest means.
func (n *Network) dialOut(id stack.TransportEndpointID) (relay.Stream, error) {
	dst := local(id)
	if n.policy.peer(dst.Addr()) {
		return n.dialPeer(id)
	}
	c, err := n.dialTCP(dst)
	if err != nil {
		return nil, err
	}
	return relay.TCP{TCPConn: c}, nil
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
	return n.newConn(&wq, ep)
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

// local is what the guest meant to reach; the stack speaks in its place.
func local(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(fromAddress(id.LocalAddress), id.LocalPort)
}

// remote is what the guest says to be.
func remote(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(fromAddress(id.RemoteAddress), id.RemotePort)
}
