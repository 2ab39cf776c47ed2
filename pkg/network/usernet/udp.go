package usernet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// flowIdle ends a UDP flow in which nothing has moved; RFC 4787, REQ-5, wants
// two minutes at least.
const flowIdle = 2 * time.Minute

// maxDatagram is the largest payload of UDP.
const maxDatagram = 65507

// outboundUDP sees the first packet of each flow of the guest. What it does not
// take is answered with "port unreachable".
func (n *Network) outboundUDP(r *udp.ForwarderRequest) bool {
	dst := local(r.ID())
	to, ok := n.policy.target(dst)
	if !ok {
		return false
	}
	if !n.flows.take() {
		return true // as a full queue does: not a word
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		n.flows.give()
		return false
	}
	guest := gonet.NewUDPConn(&wq, ep)
	n.wg.Go(func() {
		defer n.flows.give()
		defer guest.Close()
		host, err := n.dialUDP(to)
		if err != nil {
			n.c.Log.Debug("flow of the guest refused", "to", to, "err", err)
			return
		}
		n.relayFlow(guest, host)
	})
	return true
}

// dialUDP connects a socket that cannot broadcast: Go's may, and whether an
// address is one depends on the host's networks.
func (n *Network) dialUDP(to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
		return errors.Join(cerr, err)
	}}
	return d.DialContext(n.ctx, "udp", n.reroute(to).String())
}

// relayFlow copies datagrams both ways until nothing has moved for a while, or
// one side is gone. It closes both.
func (n *Network) relayFlow(a, b net.Conn) {
	f := flow{ends: [2]net.Conn{a, b}}
	f.moved()
	stop := closeWith(n.ctx, a, b)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.copy(b, a)
	}()
	f.copy(a, b)
	<-done
}

// flow is two ends of datagrams.
type flow struct {
	ends [2]net.Conn
	last atomic.Int64 // when something moved, nanoseconds since 1970
}

func (f *flow) moved() { f.last.Store(time.Now().UnixNano()) }

// left is how long the flow may still be silent.
func (f *flow) left() time.Duration {
	return flowIdle - time.Duration(time.Now().UnixNano()-f.last.Load())
}

// copy moves datagrams from src to dst; at its end it closes both.
func (f *flow) copy(dst, src net.Conn) {
	defer f.ends[0].Close()
	defer f.ends[1].Close()
	buf := make([]byte, maxDatagram)
	for {
		left := f.left()
		if left <= 0 {
			return
		}
		src.SetReadDeadline(time.Now().Add(left))
		k, err := src.Read(buf)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			continue // the other way may have moved
		}
		if err != nil {
			return
		}
		f.moved()
		if _, err := dst.Write(buf[:k]); err != nil {
			return
		}
	}
}

// DialUDP opens a flow of a client of a published port to the guest, under the
// client's own address where that can be.
func (n *Network) DialUDP(_ context.Context, client netip.AddrPort, port uint16) (net.Conn, error) {
	src, dst := full(n.policy.source(client)), full(netip.AddrPortFrom(n.c.Guest.Addr(), port))
	return gonet.DialUDP(n.stack, &src, &dst, protocol(n.c.Gateway))
}

// closeWith closes connections at the end of ctx.
func closeWith(ctx context.Context, list ...io.Closer) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		for _, c := range list {
			c.Close()
		}
	})
}
