package usernet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// Port is a published port.
type Port struct {
	Proto string `json:"proto"` // tcp or udp
	// Host is where the host listens. A port of 0 is any free one. The
	// unspecified IPv6 address takes IPv6 only.
	Host netip.AddrPort `json:"host"`
	// Any says that Host, 0.0.0.0, is every IPv6 address too, where there are any.
	Any bool `json:"any,omitempty"`
	// HostEnd is the last of a range of ports that begins with Host's, of which
	// any will do; 0 for no range.
	HostEnd uint16 `json:"hostEnd,omitempty"`
	// Guest is the port of the guest.
	Guest uint16 `json:"guest"`
}

func (p Port) String() string { return fmt.Sprintf("%s/%s", p.Host, p.Proto) }

// publish takes the port, or the first free one of its range.
func (n *Network) publish(p Port) error {
	for {
		err := n.publishOne(p)
		if err == nil || !errors.Is(err, unix.EADDRINUSE) || p.Host.Port() >= p.HostEnd {
			return err
		}
		p.Host = netip.AddrPortFrom(p.Host.Addr(), p.Host.Port()+1)
	}
}

// publishOne listens on the host. Clients wait until the guest is attached.
func (n *Network) publishOne(p Port) error {
	var at net.Addr
	var closer func() error
	switch p.Proto {
	case "tcp":
		l, err := listen(p, net.ListenTCP, net.TCPAddrFromAddrPort)
		if err != nil {
			return publishError(p, err)
		}
		at, closer = l.Addr(), l.Close
		n.wg.Go(func() { n.serveTCP(l, p.Guest) })
	case "udp":
		c, err := listen(p, net.ListenUDP, net.UDPAddrFromAddrPort)
		if err != nil {
			return publishError(p, err)
		}
		at, closer = c.LocalAddr(), c.Close
		n.wg.Go(func() { n.serveUDP(c, p.Guest) })
	default:
		return fmt.Errorf("publish %s: unknown protocol", p)
	}
	bound, err := netip.ParseAddrPort(at.String())
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closers = append(n.closers, closer)
	p.Host, p.HostEnd = netip.AddrPortFrom(p.Host.Addr(), bound.Port()), 0
	n.published = append(n.published, p)
	return err
}

// listen opens the socket of a port. One socket of both families takes IPv4
// too; a host without IPv6 has none.
func listen[L, A any](p Port, open func(string, A) (L, error), addr func(netip.AddrPort) A) (L, error) {
	if p.Any {
		l, err := open(p.Proto, addr(netip.AddrPortFrom(netip.IPv6Unspecified(), p.Host.Port())))
		if !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return l, err
		}
	}
	family := "6"
	if p.Host.Addr().Is4() {
		family = "4"
	}
	return open(p.Proto+family, addr(p.Host))
}

func publishError(p Port, err error) error {
	var sys *net.OpError
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return &taken{p}
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("publish %s: ports of the host below net.ipv4.ip_unprivileged_port_start need root", p)
	case errors.As(err, &sys):
		return fmt.Errorf("publish %s: %w", p, sys.Err)
	}
	return fmt.Errorf("publish %s: %w", p, err)
}

// taken is the error of a port that somebody else has.
type taken struct{ port Port }

func (e *taken) Error() string { return fmt.Sprintf("publish %s: port is already allocated", e.port) }
func (e *taken) Unwrap() error { return unix.EADDRINUSE }

// serveTCP takes clients until the listener is closed.
func (n *Network) serveTCP(l *net.TCPListener, port uint16) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: they come back.
			n.c.Log.Info("accept client of a published port", "err", err)
			if !n.pause(100 * time.Millisecond) {
				return
			}
			continue
		}
		if !n.clients.take() {
			reset(c)
			continue
		}
		n.wg.Go(func() {
			defer n.clients.give()
			n.client(c, port)
		})
	}
}

// pause waits, or reports false at the network's end.
func (n *Network) pause(d time.Duration) bool {
	select {
	case <-n.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// client joins a client with the guest. A guest that refuses it makes the
// client's connection end by a reset, as if it had been refused there.
func (n *Network) client(c *net.TCPConn, port uint16) {
	defer c.Close()
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	guest, err := n.dialGuest(from, port)
	if err != nil {
		n.c.Log.Debug("client of a published port", "from", from, "port", port, "err", err)
		reset(c)
		return
	}
	n.relay(guest, c)
}

// serveUDP keeps one flow of the guest for each client.
func (n *Network) serveUDP(c *net.UDPConn, port uint16) {
	peers := peers{flows: map[netip.AddrPort]net.Conn{}}
	defer peers.close()
	buf := make([]byte, maxDatagram)
	for {
		k, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier answer was refused
		}
		guest := peers.get(from)
		if guest == nil {
			if guest = n.newPeer(&peers, c, from, port); guest == nil {
				continue
			}
		}
		guest.Write(buf[:k]) // lost, as datagrams are
	}
}

// newPeer opens a flow to the guest and copies its answers to the client.
func (n *Network) newPeer(ps *peers, c *net.UDPConn, from netip.AddrPort, port uint16) net.Conn {
	if !n.clients.take() {
		return nil
	}
	src, dst := full(n.policy.source(from)), full(netip.AddrPortFrom(n.c.Guest.Addr(), port))
	guest, err := gonet.DialUDP(n.stack, &src, &dst, protocol(n.c.Gateway))
	if err != nil {
		n.clients.give()
		n.c.Log.Debug("client of a published port", "from", from, "err", err)
		return nil
	}
	ps.add(from, guest)
	n.wg.Go(func() {
		defer n.clients.give()
		defer ps.remove(from)
		stop := closeWith(n.ctx, guest)
		defer stop()
		buf := make([]byte, maxDatagram)
		for {
			guest.SetReadDeadline(time.Now().Add(flowIdle))
			k, err := guest.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.WriteToUDPAddrPort(buf[:k], from); err != nil {
				return
			}
		}
	})
	return guest
}

// peers are the clients of a published UDP port.
type peers struct {
	mu    sync.Mutex
	flows map[netip.AddrPort]net.Conn
}

func (p *peers) get(from netip.AddrPort) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flows[from]
}

func (p *peers) add(from netip.AddrPort, c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows[from] = c
}

func (p *peers) remove(from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.flows[from]; c != nil {
		c.Close()
		delete(p.flows, from)
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.flows {
		c.Close()
	}
}

// closeWith closes connections at the end of ctx.
func closeWith(ctx context.Context, list ...io.Closer) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		for _, c := range list {
			c.Close()
		}
	})
}
