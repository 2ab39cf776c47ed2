package usernet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/publish"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

var (
	guestNet  = netip.MustParsePrefix("10.0.2.15/24")
	gateway   = netip.MustParseAddr("10.0.2.2")
	elsewhere = netip.MustParseAddr("198.51.100.7") // TEST-NET-2: rerouted to loopback
)

// link is a pair of sockets that carry one frame in each datagram.
func link(t *testing.T) (host, guest *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	host, guest = os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	t.Cleanup(func() { host.Close(); guest.Close() })
	return host, guest
}

// network starts a network whose guest is a stack of the test's.
func network(t *testing.T, c Config) (*Network, *stack.Stack) {
	t.Helper()
	c.Guest, c.Gateway, c.GatewayMAC, c.MTU = guestNet, gateway, net.HardwareAddr{2, 0, 0, 0, 0, 1}, 1500
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
	file, err := duplicate(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	w := &wire{file: file, ep: channel.New(queue, 1500+header.EthernetMinimumSize, "\x02\x00\x00\x00\x00\x02")}
	go w.receive()
	go w.send(t.Context())
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	t.Cleanup(s.Destroy)
	if err := s.CreateNIC(nic, ethernet.New(w.ep)); err != nil {
		t.Fatal(err)
	}
	own := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(guestNet.Addr()), PrefixLen: 24}}
	if err := s.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: own.AddressWithPrefix.Subnet(), NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: address(gateway), NIC: nic},
	})
	return s
}

func dialFrom(t *testing.T, s *stack.Stack, to netip.AddrPort) (*gonet.TCPConn, error) {
	t.Helper()
	return dialFor(t, s, to, 20*time.Second)
}

func dialFor(t *testing.T, s *stack.Stack, to netip.AddrPort, limit time.Duration) (*gonet.TCPConn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return gonet.DialContextTCP(ctx, s, full(to), ipv4.ProtocolNumber)
}

// echo serves one TCP connection on loopback: all that came, after its end.
func echo(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			c.Write(append([]byte("got "), b...))
			c.Close()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
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

func TestOutboundTCP(t *testing.T) {
	_, guest := network(t, Config{})
	c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, echo(t)))
	if err != nil {
		t.Fatal(err)
	}
	long := string(bytes.Repeat([]byte("0123456789"), 100_000))
	if got := exchange(t, c, long); got != "got "+long {
		t.Errorf("got %d bytes back, want %d", len(got), len(long)+4)
	}
}

func TestDeniedTCP(t *testing.T) {
	port := echo(t)
	_, guest := network(t, Config{}) // reroutes whatever policy lets through to that server
	for _, to := range []string{"127.0.0.1", "0.0.0.0", "169.254.169.254", "10.0.2.2", "10.0.2.77", "224.0.0.1", "255.255.255.255"} {
		// Some get no answer at all.
		if c, err := dialFor(t, guest, netip.AddrPortFrom(netip.MustParseAddr(to), port), time.Second); err == nil {
			c.Close()
			t.Errorf("the guest reached %s", to)
		}
	}
}

// Packets of a guest may hold any address: its own stack refuses to send to
// 127.0.0.1, a hostile one does not.
func TestForgedLoopback(t *testing.T) {
	n, _ := network(t, Config{})
	if _, err := n.dialTCP(netip.MustParseAddrPort("127.0.0.1:80")); !errors.Is(err, errDenied) {
		t.Errorf("loopback: %v", err)
	}
	if _, err := n.dialTCP(netip.MustParseAddrPort("[::ffff:127.0.0.1]:80")); !errors.Is(err, errDenied) {
		t.Errorf("mapped loopback: %v", err)
	}
}

func TestRefusedTCP(t *testing.T) {
	_, guest := network(t, Config{})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	if _, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, port)); err == nil {
		t.Error("connected to a port where nobody listens")
	}
}

func TestHostBehindGateway(t *testing.T) {
	_, guest := network(t, Config{Host: func() netip.Addr { return elsewhere }})
	c, err := dialFrom(t, guest, netip.AddrPortFrom(gateway, echo(t)))
	if err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, c, "host"); got != "got host" {
		t.Errorf("got %q", got)
	}
}

func TestPublishedTCP(t *testing.T) {
	n, guest := network(t, Config{Ports: []publish.Port{{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}}})
	l, err := gonet.ListenTCP(guest, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		from <- c.RemoteAddr().String()
		b, _ := io.ReadAll(c)
		c.Write(append([]byte("guest "), b...))
		c.Close()
	}()
	at := n.Published()[0].Host
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, c.(*net.TCPConn), "hello"); got != "guest hello" {
		t.Errorf("got %q", got)
	}
	// A client on loopback must not look like one inside the guest.
	if got := netip.MustParseAddrPort(<-from); got.Addr() != gateway {
		t.Errorf("the guest saw %s, want the gateway", got)
	}
}

func TestPublishedToNobody(t *testing.T) {
	n, _ := network(t, Config{Ports: []publish.Port{{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}}})
	c, err := net.Dial("tcp", n.Published()[0].Host.String())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := Config{
		Guest: guestNet, Gateway: gateway, GatewayMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500,
		Ports: []publish.Port{
			{Proto: "udp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 1},
			{Proto: "tcp", Host: netip.MustParseAddrPort(l.Addr().String()), Guest: 80},
		},
	}
	_, err = New(c)
	if want := "publish " + l.Addr().String() + "/tcp: port is already allocated"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestEveryAddress(t *testing.T) {
	n, guest := network(t, Config{Ports: []publish.Port{{Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:0"), Any: true, Guest: 80}}})
	l, err := gonet.ListenTCP(guest, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	port := n.Published()[0].Host.Port()
	for _, a := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(a), port)
		c, err := net.Dial("tcp", at.String())
		if a == "::1" && errors.Is(err, unix.EADDRNOTAVAIL) {
			continue // this host has no IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := exchange(t, c.(*net.TCPConn), a); got != a {
			t.Errorf("%s: got %q", at, got)
		}
	}
}

func TestPortOfRange(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	n, _ := network(t, Config{Ports: []publish.Port{{Proto: "tcp", Host: at, HostEnd: at.Port() + 50, Guest: 80}}})
	if got := n.Published()[0]; got.Host.Port() <= at.Port() || got.Host.Port() > at.Port()+50 {
		t.Errorf("published on %s, want one of the 50 after %s", got, at)
	}
}

func TestUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go echoDatagrams(pc)
	_, guest := network(t, Config{})
	to := full(netip.AddrPortFrom(elsewhere, uint16(pc.LocalAddr().(*net.UDPAddr).Port)))
	c, err := gonet.DialUDP(guest, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	datagram(t, c, "ping")
	datagram(t, c, string(bytes.Repeat([]byte("x"), 9000))) // in fragments
}

func TestPublishedUDP(t *testing.T) {
	n, guest := network(t, Config{Ports: []publish.Port{{Proto: "udp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 53}}})
	server, err := gonet.DialUDP(guest, &tcpip.FullAddress{NIC: nic, Port: 53}, nil, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	go echoDatagrams(server)
	for range 3 {
		c, err := net.Dial("udp", n.Published()[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		datagram(t, c, "question")
		datagram(t, c, "another")
		c.Close()
	}
}

func echoDatagrams(c net.PacketConn) {
	buf := make([]byte, maxDatagram)
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
	buf := make([]byte, maxDatagram)
	for range 20 {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if k, err := c.Read(buf); err == nil {
			if string(buf[:k]) != text {
				t.Fatalf("got %d bytes back, want %d", k, len(text))
			}
			return
		}
	}
	t.Fatalf("%d bytes did not come back", len(text))
}

func question(t *testing.T, name string) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNames(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent.Close() // refuses
	upstream, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	go echoDatagrams(upstream) // its answer is the question
	_, guest := network(t, Config{
		Names: []string{"host.docker.internal."},
		Resolvers: func() []netip.AddrPort {
			return []netip.AddrPort{
				netip.MustParseAddrPort(silent.LocalAddr().String()), netip.MustParseAddrPort(upstream.LocalAddr().String()),
			}
		},
	})
	to := full(netip.AddrPortFrom(gateway, dnsPort))
	c, err := gonet.DialUDP(guest, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	datagram(t, c, string(question(t, "example.org.")))

	c.Write(question(t, "HOST.docker.internal."))
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, maxDatagram)
	k, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(buf[:k]); err != nil {
		t.Fatal(err)
	}
	if len(m.Answers) != 1 || m.Answers[0].Body.(*dnsmessage.AResource).A != gateway.As4() || m.ID != 4711 {
		t.Errorf("answer %v", m)
	}
}

func TestNoResolver(t *testing.T) {
	n, _ := network(t, Config{})
	reply := n.resolve(question(t, "example.org."))
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	if m.RCode != dnsmessage.RCodeServerFailure || !m.Response {
		t.Errorf("answer %v", m.Header)
	}
}

// What a guest sends is bytes: none of it may end the network.
func TestBrokenFrames(t *testing.T) {
	n, err := New(Config{Guest: guestNet, Gateway: gateway, GatewayMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, bytes.Repeat([]byte{0x45}, 60)...)
	raw, err := guest.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for i := range frame { // os.File writes no empty one
		if cerr := raw.Control(func(fd uintptr) { _, err = unix.Write(int(fd), frame[:i]) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
	}
	for _, kind := range [][]byte{{8, 0}, {8, 6}, {0x86, 0xdd}, {0xff, 0xff}} {
		b := append(append([]byte{}, frame[:12]...), kind...)
		for _, fill := range []byte{0, 0x45, 0x4f, 0x60, 0xff} {
			guest.Write(append(bytes.Clone(b), bytes.Repeat([]byte{fill}, 1400)...))
		}
	}
	guest.Write(bytes.Repeat([]byte{0xff}, 65_000))
	s := guestStack(t, guest)
	c, err := dialFrom(t, s, netip.AddrPortFrom(gateway, 9))
	if err == nil {
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("after broken frames: %v, want refused", err)
	}
}

// A guest that takes nothing keeps its place, and no memory beyond that.
func TestGuestThatTakesNothing(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write(make([]byte, 4<<20)) // more than any buffer; ends by a reset
			c.Close()
		}
	}()
	n, guest := network(t, Config{})
	var all []net.Conn
	for range 3 {
		c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, uint16(l.Addr().(*net.TCPAddr).Port)))
		if err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		all = append(all, c)
	}
	if got := len(n.streams); got != len(all) {
		t.Errorf("%d places for %d connections that are not over", got, len(all))
	}
	n.Close()
	if got := len(n.streams); got != 0 {
		t.Errorf("%d places after the end", got)
	}
}

// One client socket talks to two published ports.
func TestSamePortOfClient(t *testing.T) {
	n, guest := network(t, Config{Ports: []publish.Port{
		{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80},
		{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 81},
	}})
	client := netip.MustParseAddrPort("192.0.2.9:5000")
	for _, port := range []uint16{80, 81} {
		l, err := gonet.ListenTCP(guest, tcpip.FullAddress{NIC: nic, Port: port}, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		go l.Accept()
		c, err := n.DialTCP(t.Context(), client, port)
		if err != nil {
			t.Fatalf("port %d: %v", port, err)
		}
		defer c.Reset()
	}
}

func TestOnlyQuestions(t *testing.T) {
	good := question(t, "example.org.")
	for name, c := range map[string]struct {
		b    []byte
		want bool
	}{
		"question": {good, true},
		"answer":   {with(good, 2, good[2]|0x80), false},
		"update":   {with(good, 2, 5<<3), false},
		"AXFR":     {with(good, len(good)-3, 252), false},
		"IXFR":     {with(good, len(good)-3, 251), false},
		"short":    {good[:11], false},
		"nothing":  {nil, false},
	} {
		if got := isQuestion(c.b); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func with(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

func TestLimitOfStreams(t *testing.T) {
	n, guest := network(t, Config{})
	for range maxStreams {
		n.streams.take()
	}
	if c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, echo(t))); err == nil {
		c.Close()
		t.Error("one more connection than the limit")
	}
	for range maxStreams {
		n.streams.give()
	}
	c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, echo(t)))
	if err != nil {
		t.Fatalf("after the limit: %v", err)
	}
	exchange(t, c, "again")
}
