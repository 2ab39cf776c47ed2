package usernet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// outboundUDP sees the first packet of each flow of the guest. What it does not
// take is answered with "port unreachable".
func (n *Network) outboundUDP(r *udp.ForwarderRequest) bool {
	dial := n.flowDialer(r.ID())
	if dial == nil {
		return false
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		return false
	}
	guest := newDatagrams(&wq, ep)
	if !n.begin() {
		guest.Close()
		return true
	}
	go func() {
		defer n.wg.Done()
		n.carry(guest, local(r.ID()), dial)
	}()
	return true
}

// dialer opens the far end of a flow.
type dialer func(context.Context) (relay.Socket, error)

// wayOf is the way of a flow to whom the guest means, nil where there is none: peer
// opens it to another guest, and host is the way to a target of the policy.
func (n *Network) wayOf(id stack.TransportEndpointID, peer dialer, host func(to netip.AddrPort) dialer) dialer {
	dst := local(id)
	if n.policy.peer(dst.Addr()) {
		if !n.reachesPeers(id) {
			return nil
		}
		return func(ctx context.Context) (relay.Socket, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return peer(ctx)
		}
	}
	to, ok := n.policy.target(dst)
	if !ok {
		return nil
	}
	return host(to)
}

// flowDialer is the way of datagrams.
func (n *Network) flowDialer(id stack.TransportEndpointID) dialer {
	peer := func(ctx context.Context) (relay.Socket, error) {
		return n.c.Peers.DialUDP(ctx, remote(id), local(id))
	}
	return n.wayOf(id, peer, func(to netip.AddrPort) dialer {
		if !n.routed(to) {
			return nil
		}
		return func(ctx context.Context) (relay.Socket, error) { return n.dialUDP(ctx, to) }
	})
}

// routed reports whether the host has a way to an address, as far as it is asked: many
// have none of IPv6 beyond themselves, and a guest that hears of it at once takes IPv4.
// Nothing is sent to find out.
func (n *Network) routed(to netip.AddrPort) bool {
	if to.Addr().Is4() {
		return true
	}
	c, err := n.dialUDP(n.ctx, to)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// dialUDP connects a socket that cannot broadcast: Go's may, and whether an
// address is one depends on the host's networks.
func (n *Network) dialUDP(ctx context.Context, to netip.AddrPort) (relay.UDP, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
		return errors.Join(cerr, err)
	}}
	c, err := d.DialContext(ctx, "udp", n.reroute(to).String())
	if err != nil {
		return relay.UDP{}, err
	}
	return relay.UDP{UDPConn: c.(*net.UDPConn)}, nil
}

// carry opens a flow and copies datagrams both ways until it is over. It counts
// from the beginning: to find a peer takes a while, and a guest may ask for many.
func (n *Network) carry(guest relay.Socket, to netip.AddrPort, dial dialer) {
	ctx, cancel := context.WithCancel(n.ctx)
	f := n.flows.Open(to.Port(), func() {
		cancel()
		guest.Close()
	})
	defer f.Close()
	far, err := dial(ctx)
	if err != nil {
		n.c.Log.Debug("flow of the guest refused", "to", to, "err", err)
		return
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { far.Close() })
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Copy(ctx, far, guest, false)
	}()
	f.Copy(ctx, guest, far, true)
	<-done
}

// datagrams is a UDP flow of the guest, seen from here: a relay.Socket.
type datagrams struct {
	*gonet.UDPConn
	ep tcpip.Endpoint
	wq *waiter.Queue
}

func newDatagrams(wq *waiter.Queue, ep tcpip.Endpoint) *datagrams {
	return &datagrams{UDPConn: gonet.NewUDPConn(wq, ep), ep: ep, wq: wq}
}

// Receive implements relay.Socket.
func (d *datagrams) Receive(until time.Time, buffers *relay.Buffers, f func([]byte) error) error {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	d.wq.EventRegister(&entry)
	defer d.wq.EventUnregister(&entry)
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		if empty, err := d.receive(buffers, f); !empty {
			return err
		}
		select {
		case <-ready:
		case <-timer.C:
			return os.ErrDeadlineExceeded
		}
	}
}

// receive gives f the next datagram, if there is one.
func (d *datagrams) receive(buffers *relay.Buffers, f func([]byte) error) (empty bool, err error) {
	buffers.With(func(b []byte) {
		w := tcpip.SliceWriter(b)
		r, terr := d.ep.Read(&w, tcpip.ReadOptions{})
		switch terr.(type) {
		case nil:
			err = f(b[:r.Count])
		case *tcpip.ErrWouldBlock:
			empty = true
		default:
			err = errors.New(terr.String())
		}
	})
	return empty, err
}

// DialUDP opens a flow of a client of a published port to the guest, under the
// client's own address and port where that can be.
func (n *Network) DialUDP(_ context.Context, client netip.AddrPort, port uint16) (relay.Socket, error) {
	return n.flowTo(n.policy.source(client), port)
}

// flowTo opens a flow to the guest from an address, if need be from another port.
func (n *Network) flowTo(from netip.AddrPort, port uint16) (relay.Socket, error) {
	to, err := n.guestFor(from.Addr(), port)
	if err != nil {
		return nil, err
	}
	d, err := n.connectUDP(from, to)
	if errors.Is(err, errInUse) {
		// Another flow of the client has it.
		d, err = n.connectUDP(netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (n *Network) connectUDP(from, to netip.AddrPort) (*datagrams, error) {
	var wq waiter.Queue
	ep, terr := n.stack.NewEndpoint(udp.ProtocolNumber, protocol(to.Addr()), &wq)
	if terr != nil {
		return nil, errors.New(terr.String())
	}
	terr = ep.Bind(full(from))
	if _, ok := terr.(*tcpip.ErrPortInUse); ok {
		ep.Close()
		return nil, errInUse
	}
	if terr == nil {
		terr = ep.Connect(full(to))
	}
	if terr != nil {
		ep.Close()
		return nil, errors.New(terr.String())
	}
	return newDatagrams(&wq, ep), nil
}
