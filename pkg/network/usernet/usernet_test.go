package usernet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

var (
	guestNet  = netip.MustParsePrefix("10.0.2.15/24")
	gateway   = netip.MustParseAddr("10.0.2.2")
	elsewhere = netip.MustParseAddr("198.51.100.7") // TEST-NET-2: rerouted to loopback

	guestNet6  = netip.MustParsePrefix("fd66::15/64")
	gateway6   = netip.MustParseAddr("fd66::2")
	elsewhere6 = netip.MustParseAddr("2001:db8::7") // RFC 3849: rerouted too
)

// link is a pair of sockets that carry one frame in each datagram.
func link(t *testing.T) (host, guest *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	host, guest = os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	t.Cleanup(func() { host.Close(); guest.Close() })
	return host, guest
}

// with completes the config of a network of the tests.
func with(c Config) Config {
	c.Guest, c.Gateway, c.MTU = guestNet, gateway, 1500
	c.GuestMAC, c.GatewayMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}, net.HardwareAddr{2, 0, 0, 0, 0, 1}
	return c
}

// with6 is with, in a network that has IPv6.
func with6(c Config) Config {
	c = with(c)
	c.Guest6, c.Gateway6 = guestNet6, gateway6
	return c
}

// families are both, each by where the guest finds somebody else.
var families = []netip.Addr{elsewhere, elsewhere6}

// network starts a network with IPv6 whose guest is a stack of the test's.
func network(t *testing.T, c Config) (*Network, *stack.Stack) {
	t.Helper()
	return networkOf(t, with6(c))
}

func networkOf(t *testing.T, c Config) (*Network, *stack.Stack) {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	n.reroute = func(to netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
	}
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	return n, guestStack(t, guest)
}

func guestStack(t *testing.T, f *os.File) *stack.Stack {
	t.Helper()
	s, stop := newGuest(t, f)
	t.Cleanup(stop)
	return s
}

// newGuest is guestStack with an end before the test's.
func newGuest(t *testing.T, f *os.File) (s *stack.Stack, stop func()) {
	t.Helper()
	return newGuestAt(t, f, guestNet, guestNet6)
}

// newGuestAt is newGuest with other addresses.
func newGuestAt(t *testing.T, f *os.File, at, at6 netip.Prefix) (s *stack.Stack, stop func()) {
	t.Helper()
	file, err := duplicate(f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &wire{file: file, ep: newOutlet(ctx, 1500, guestMAC), admits: func(b []byte) bool { return len(b) >= header.EthernetMinimumSize }}
	go w.receive()
	go w.send(ctx)
	s = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	stop = func() {
		cancel()
		file.Close()
		s.Destroy()
	}
	if err := s.CreateNIC(nic, ethernet.New(w.ep)); err != nil {
		t.Fatal(err)
	}
	var routes []tcpip.Route
	for _, at := range []netip.Prefix{at, at6} {
		own := tcpip.ProtocolAddress{Protocol: protocol(at.Addr()), AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(at.Addr()), PrefixLen: at.Bits()}}
		if err := s.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
		routes = append(routes, tcpip.Route{Destination: own.AddressWithPrefix.Subnet(), NIC: nic})
	}
	s.SetRouteTable(append(routes,
		tcpip.Route{Destination: header.IPv4EmptySubnet, Gateway: address(gateway), NIC: nic},
		tcpip.Route{Destination: header.IPv6EmptySubnet, Gateway: address(gateway6), NIC: nic},
	))
	return s, stop
}

func dialFrom(t *testing.T, s *stack.Stack, to netip.AddrPort) (*gonet.TCPConn, error) {
	t.Helper()
	return dialFor(t, s, to, time.Minute)
}

func dialFor(t *testing.T, s *stack.Stack, to netip.AddrPort, limit time.Duration) (*gonet.TCPConn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return gonet.DialContextTCP(ctx, s, full(to), protocol(to.Addr()))
}

// echo serves TCP connections on loopback: all that came, after its end.
func echo(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveAll(t, l, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		c.Write(append([]byte("got "), b...))
		c.Close()
	})
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// serveAll runs serve on each connection to a listener, which it closes at the end.
func serveAll(t *testing.T, l net.Listener, serve func(net.Conn)) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func exchange(t *testing.T, c halfCloser, text string) string {
	t.Helper()
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func echoDatagrams(c net.PacketConn) {
	buf := make([]byte, 65507)
	for {
		k, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo(buf[:k], from)
	}
}

// datagram sends text until it comes back: datagrams may be lost.
func datagram(t *testing.T, c net.Conn, text string) {
	t.Helper()
	buf := make([]byte, 65507)
	for range 20 {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if k, err := c.Read(buf); err == nil {
			if string(buf[:k]) != text {
				t.Fatalf("got %d bytes back, want %d", k, len(text))
			}
			return
		}
	}
	t.Fatalf("%d bytes did not come back", len(text))
}
