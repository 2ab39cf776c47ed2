package usernet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/publish"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

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

// TestPublish is of a guest that had no ports until it was attached.
func TestPublish(t *testing.T) {
	n, guest := network(t, Config{})
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
			b, _ := io.ReadAll(c)
			c.Write(append([]byte("guest "), b...))
			c.Close()
		}
	}()
	ports := []publish.Port{{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}}
	if err := n.Publish(ports); err != nil {
		t.Fatal(err)
	}
	at := n.Published()[0].Host
	if err := n.Publish(ports); err == nil {
		t.Error("published twice")
	}
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, c.(*net.TCPConn), "hello"); got != "guest hello" {
		t.Errorf("got %q", got)
	}
	n.Close()
	if c, err := net.Dial("tcp", at.String()); err == nil {
		c.Close()
		t.Error("the port is there still")
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
	c := with(Config{
		Ports: []publish.Port{
			{Proto: "udp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 1},
			{Proto: "tcp", Host: netip.MustParseAddrPort(l.Addr().String()), Guest: 80},
		},
	})
	_, err = New(c)
	if want := "publish " + l.Addr().String() + "/tcp: port is already allocated"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

// Clients of both families come to the guest by theirs, or by the one that it has.
func TestEveryAddress(t *testing.T) {
	c := Config{Ports: []publish.Port{{Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:0"), Any: true, Guest: 80}}}
	testEveryAddress(t, with(c), gateway)
	testEveryAddress(t, with6(c), gateway6)
}

// testEveryAddress says from where a client by IPv6 comes.
func testEveryAddress(t *testing.T, c Config, from6 netip.Addr) {
	t.Helper()
	n, guest := networkOf(t, c)
	from := make(chan string, 3)
	listenIn(t, guest, 80, func(c *gonet.TCPConn) {
		from <- c.RemoteAddr().String()
		io.Copy(c, c)
		c.Close()
	})
	port := n.Published()[0].Host.Port()
	for a, want := range map[string]netip.Addr{"127.0.0.1": gateway, "127.0.0.2": gateway, "::1": from6} {
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
		if got := netip.MustParseAddrPort(<-from).Addr(); got != want {
			t.Errorf("%s: the guest saw %s, want %s", at, got, want)
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

// A client by IPv6 is seen by its own address, as one by IPv4 is.
func TestClientsAddress(t *testing.T) {
	n, guest := network(t, Config{})
	from := make(chan string, 1)
	listenIn(t, guest, 80, func(c *gonet.TCPConn) { from <- c.RemoteAddr().String(); c.Close() })
	server, err := gonet.DialUDP(guest, &tcpip.FullAddress{NIC: nic, Port: 80}, nil, ipv6.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range []string{"192.0.2.9:5000", "[2001:db8::9]:5000"} {
		c, err := n.DialTCP(t.Context(), netip.MustParseAddrPort(client), 80)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Reset()
		if got := <-from; got != client {
			t.Errorf("TCP: the guest saw %s, want %s", got, client)
		}
		flow, err := n.DialUDP(t.Context(), netip.MustParseAddrPort(client), 80)
		if err != nil {
			t.Fatal(err)
		}
		defer flow.Close()
		flow.Write([]byte("x"))
		server.SetReadDeadline(time.Now().Add(time.Minute))
		if _, got, err := server.ReadFrom(make([]byte, 9)); err != nil || got.String() != client {
			t.Errorf("UDP: the guest saw %v, %v, want %s", got, err, client)
		}
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
