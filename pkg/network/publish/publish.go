// Package publish takes ports of the host and carries those who come there to a
// guest. It is sockets of this process and copies between them: no rule of a
// firewall, no privilege, and nothing that outlives the process.
//
// What it is not: the way to the guest. That is a Dialer's.
//
// Lifecycle: Listen takes the ports, so that one which somebody else has is
// known early. Clients wait, as many as the kernel keeps for a listener, until
// Serve. Close frees all. Methods are safe for concurrent use.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Port is a published port.
type Port struct {
	Proto string `json:"proto"` // tcp or udp
	// Host is where the host listens. A port of 0 is any free one. The
	// unspecified IPv6 address takes IPv6 only.
	Host netip.AddrPort `json:"host"`
	// Any says that Host, 0.0.0.0, is every IPv6 address too. What Ports tells
	// has it only where the host has IPv6.
	Any bool `json:"any,omitempty"`
	// HostEnd is the last of a range of ports that begins with Host's, of which
	// any will do; 0 for no range.
	HostEnd uint16 `json:"hostEnd,omitempty"`
	// Guest is the port of the guest.
	Guest uint16 `json:"guest"`
}

func (p Port) String() string { return fmt.Sprintf("%s/%s", p.Host, p.Proto) }

// Dialer reaches a guest for a client. client is the client's own address, which
// the guest should see where that can be. ctx bounds the call only.
type Dialer interface {
	DialTCP(ctx context.Context, client netip.AddrPort, port uint16) (relay.Stream, error)
	DialUDP(ctx context.Context, client netip.AddrPort, port uint16) (relay.Socket, error)
}

// dialTimeout bounds the wait for a guest.
const dialTimeout = 30 * time.Second

// Limits of what clients may have at the same time.
type Limits struct {
	Streams int // TCP connections; one more is reset
	Flows   int // UDP flows; one more ends another: see relay.Flows
}

// Server is a set of published ports.
type Server struct {
	log     *slog.Logger
	streams *semaphore.Weighted
	flows   *relay.Flows

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	ports   []Port
	sockets []socket
	serving bool
}

// socket is what a port is on the host.
type socket interface {
	serve(s *Server, d Dialer, guest uint16)
	Close() error
}

// Listen takes the ports. An error names the one that cannot be had; then
// nothing is left behind.
func Listen(ports []Port, l Limits, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, streams: semaphore.NewWeighted(int64(l.Streams)), flows: relay.NewFlows(l.Flows)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, p := range ports {
		if err := s.take(p); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// take takes the port, or the first free one of its range.
func (s *Server) take(p Port) error {
	for {
		err := s.takeOne(p)
		if err == nil || !errors.Is(err, unix.EADDRINUSE) || p.Host.Port() >= p.HostEnd {
			return err
		}
		p.Host = netip.AddrPortFrom(p.Host.Addr(), p.Host.Port()+1)
	}
}

func (s *Server) takeOne(p Port) error {
	sock, bound, err := open(p)
	if err != nil {
		return publishError(p, err)
	}
	s.sockets, s.ports = append(s.sockets, sock), append(s.ports, bound)
	return nil
}

// open makes the socket of a port, and tells what became of the port.
func open(p Port) (socket, Port, error) {
	switch p.Proto {
	case "tcp":
		l, p, err := listen(p, net.ListenTCP, net.TCPAddrFromAddrPort)
		if err != nil {
			return nil, p, err
		}
		return &listener{l}, bound(p, l.Addr()), nil
	case "udp":
		c, p, err := listen(p, net.ListenUDP, net.UDPAddrFromAddrPort)
		if err != nil {
			return nil, p, err
		}
		sock, err := newPackets(c)
		if err != nil {
			c.Close()
			return nil, p, err
		}
		return sock, bound(p, c.LocalAddr()), nil
	}
	return nil, p, errors.New("unknown protocol")
}

// listen opens the socket of a port. One socket of both families takes IPv4
// too, but for a host without IPv6: there it would be one of IPv4 that says to be
// more.
func listen[L, A any](p Port, open func(string, A) (L, error), addr func(netip.AddrPort) A) (L, Port, error) {
	if p.Any = p.Any && hasIPv6(); p.Any {
		l, err := open(p.Proto, addr(netip.AddrPortFrom(netip.IPv6Unspecified(), p.Host.Port())))
		return l, p, err
	}
	family := "6"
	if p.Host.Addr().Is4() {
		family = "4"
	}
	l, err := open(p.Proto+family, addr(p.Host))
	return l, p, err
}

// hasIPv6 reports whether IPv6 is there and not switched off: the unspecified
// address can be had even then.
func hasIPv6() bool {
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// bound is a port with the number that the host chose.
func bound(p Port, at net.Addr) Port {
	if a, err := netip.ParseAddrPort(at.String()); err == nil {
		p.Host, p.HostEnd = netip.AddrPortFrom(p.Host.Addr(), a.Port()), 0
	}
	return p
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

// Ports lists the ports with the numbers that the host chose.
func (s *Server) Ports() []Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Port(nil), s.ports...)
}

// Serve lets clients in, and returns at once. It works once.
func (s *Server) Serve(d Dialer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving || s.ctx.Err() != nil {
		return errors.New("published ports: served or closed already")
	}
	s.serving = true
	for i, sock := range s.sockets {
		s.wg.Go(func() { sock.serve(s, d, s.ports[i].Guest) })
	}
	return nil
}

// Close resets every client, frees every port and waits until that is done.
// Idempotent.
func (s *Server) Close() {
	s.mu.Lock()
	s.cancel()
	for _, sock := range s.sockets {
		sock.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
