package usernet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/peer"
	"github.com/micropod/micropod/pkg/network/relay"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// neighbours are the guests of one network, each with a socket for the others.
type neighbours struct {
	mu  sync.Mutex
	all map[netip.Addr]string // sockets
}

// networkID is the id of each network of the tests: others do not know of it.
const networkID = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func (o *neighbours) of(from, to netip.AddrPort) (socket string, r peer.Request, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	socket, ok := o.all[to.Addr()]
	if !ok {
		err = peer.ErrRefused
	}
	return socket, peer.Request{Network: networkID, From: from, To: to}, err
}

func (o *neighbours) DialTCP(ctx context.Context, from, to netip.AddrPort) (relay.Stream, error) {
	socket, r, err := o.of(from, to)
	if err != nil {
		return nil, err
	}
	return peer.DialTCP(ctx, socket, r)
}

func (o *neighbours) DialUDP(ctx context.Context, from, to netip.AddrPort) (relay.Socket, error) {
	socket, r, err := o.of(from, to)
	if err != nil {
		return nil, err
	}
	return peer.DialUDP(ctx, socket, r)
}

func (o *neighbours) DialPing(ctx context.Context, from, to netip.Addr) (relay.Socket, error) {
	socket, r, err := o.of(netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0))
	if err != nil {
		return nil, err
	}
	return peer.DialPing(ctx, socket, r)
}

// serve lets the others reach a guest.
func (o *neighbours) serve(t *testing.T, n *Network) *peer.Server {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "peer.sock")
	s, err := peer.Listen(socket, peer.OwnLimits(), n.c.Log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Serve([]peer.Member{{
		Network: networkID, Address: n.c.Guest, Gateway: n.c.Gateway, Address6: n.c.Guest6, Gateway6: n.c.Gateway6, Guest: n.FromPeers(),
	}}); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[netip.Addr]string{}
	}
	o.all[n.c.Guest.Addr()], o.all[n.c.Guest6.Addr()] = socket, socket
	return s
}

// member starts the network of a guest with addresses of its own: 10.0.2.n and
// fd66::n. Nothing of it may go to the host's networks.
func (o *neighbours) member(t *testing.T, n int, c Config) (*Network, *stack.Stack) {
	t.Helper()
	c = with6(c)
	c.Guest, c.Guest6, c.Peers = netip.MustParsePrefix(fmt.Sprintf("10.0.2.%d/24", n)), netip.MustParsePrefix(fmt.Sprintf("fd66::%d/64", n)), o
	return o.start(t, c)
}

// start starts the network of a guest, and lets the others reach it.
func (o *neighbours) start(t *testing.T, c Config) (*Network, *stack.Stack) {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	n.reroute = func(to netip.AddrPort) netip.AddrPort {
		t.Errorf("a connection went to %s by the host", to)
		return netip.AddrPort{}
	}
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	s, stop := newGuestAt(t, guest, c.Guest, c.Guest6)
	t.Cleanup(stop)
	o.serve(t, n)
	return n, s
}

// couple is two guests of one network, and what the second listens at.
func couple(t *testing.T) (a, b *stack.Stack) {
	t.Helper()
	var all neighbours
	_, a = all.member(t, 20, Config{})
	_, b = all.member(t, 21, Config{})
	return a, b
}

func listenIn(t *testing.T, s *stack.Stack, port uint16, serve func(*gonet.TCPConn)) {
	t.Helper()
	l, err := gonet.ListenTCP(s, tcpip.FullAddress{NIC: nic, Port: port}, ipv6.ProtocolNumber) // and of IPv4
	if err != nil {
		t.Fatal(err)
	}
	serveAll(t, l, func(c net.Conn) { serve(c.(*gonet.TCPConn)) })
}

func TestPeerTCP(t *testing.T) {
	a, b := couple(t)
	from := make(chan string, 1)
	listenIn(t, b, 80, func(c *gonet.TCPConn) { // answers after the end of what it gets
		from <- c.RemoteAddr().String()
		text, _ := io.ReadAll(c)
		c.Write(append([]byte("got "), text...))
		c.Close()
	})
	long := string(bytes.Repeat([]byte("0123456789"), 50_000))
	for _, to := range []string{"10.0.2.21:80", "[fd66::21]:80"} {
		c, err := dialFrom(t, a, netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		own := c.LocalAddr().String()
		if got := exchange(t, c, long); got != "got "+long {
			t.Errorf("%s: got %d bytes back, want %d", to, len(got), len(long)+4)
		}
		if got := <-from; got != own {
			t.Errorf("%s saw %s, want %s", to, got, own)
		}
	}
}

// A connection that breaks in one guest is reset in the other.
func TestPeerReset(t *testing.T) {
	a, b := couple(t)
	listenIn(t, b, 80, func(c *gonet.TCPConn) {
		c.Write([]byte("half"))
		c.Read(make([]byte, 1))
		c.Close() // with bytes that nobody has read: a reset, RFC 2525 section 2.17
	})
	c, err := dialFrom(t, a, netip.MustParseAddrPort("10.0.2.21:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("two bytes and more"))
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a reset: %v", err)
	}
}

// A guest that has nothing to say waits; when the other's supervisor is lost, its
// connection is reset, and the next one is refused.
func TestLostPeer(t *testing.T) {
	var all neighbours
	_, a := all.member(t, 20, Config{})
	n, b := all.member(t, 21, Config{})
	lost := all.serve(t, n)
	listenIn(t, b, 80, func(c *gonet.TCPConn) { io.Copy(io.Discard, c) })
	c, err := dialFrom(t, a, netip.MustParseAddrPort("10.0.2.21:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lost.Close()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the loss: %v", err)
	}
	if c, err := dialFrom(t, a, netip.MustParseAddrPort("10.0.2.21:80")); err == nil {
		c.Close()
		t.Error("connected to a guest that is lost")
	}
}

func TestPeerUDP(t *testing.T) {
	a, b := couple(t)
	for _, to := range []string{"10.0.2.21:4000", "[fd66::21]:4000"} {
		testPeerUDP(t, a, b, netip.MustParseAddrPort(to))
	}
}

func testPeerUDP(t *testing.T, a, b *stack.Stack, other netip.AddrPort) {
	t.Helper()
	proto, to := protocol(other.Addr()), full(other)
	server, err := gonet.DialUDP(b, &to, nil, proto)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	from := make(chan string, 99)
	go func() {
		buf := make([]byte, 65507)
		for {
			k, at, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			from <- at.String()
			server.WriteTo(buf[:k], at)
		}
	}()
	c, err := gonet.DialUDP(a, nil, &to, proto)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	datagram(t, c, "ping")
	datagram(t, c, string(bytes.Repeat([]byte("x"), 9000))) // in fragments
	if got := <-from; got != c.LocalAddr().String() {
		t.Errorf("%s saw %s, want %s", other, got, c.LocalAddr())
	}
}

// Nobody has the address, nobody listens, or it is no guest's at all: the answer
// comes from here, never from the host's networks.
func TestPeerRefused(t *testing.T) {
	a, _ := couple(t)
	for _, to := range []string{"10.0.2.99:80", "10.0.2.21:81", "10.0.2.2:80", "[fd66::99]:80", "[fd66::21]:81", "[fd66::2]:80"} {
		begun := time.Now()
		if c, err := dialFrom(t, a, netip.MustParseAddrPort(to)); err == nil {
			c.Close()
			t.Errorf("connected to %s", to)
		}
		if d := time.Since(begun); d > time.Minute {
			t.Errorf("%s is refused after %v", to, d)
		}
	}
}

// A guest of another network with the same addresses is never meant.
func TestPeersOfAnotherNetwork(t *testing.T) {
	a, _ := couple(t)
	var others neighbours
	_, c := others.member(t, 22, Config{})
	listenIn(t, c, 80, func(c *gonet.TCPConn) { c.Close() })
	for _, to := range []string{"10.0.2.22:80", "[fd66::22]:80"} {
		if c, err := dialFrom(t, a, netip.MustParseAddrPort(to)); err == nil {
			c.Close()
			t.Errorf("a guest reached %s of another network", to)
		}
	}
}

// An internal network has its guests and nothing else: member's reroute tells.
func TestInternal(t *testing.T) {
	var all neighbours
	c := Config{Internal: true, Host: func(netip.Addr) netip.Addr { return elsewhere }}
	n, a := all.member(t, 20, c)
	_, b := all.member(t, 21, c)
	listenIn(t, b, 80, func(c *gonet.TCPConn) { c.Write([]byte("in")); c.Close() })
	for _, to := range []string{"10.0.2.21:80", "[fd66::21]:80"} {
		conn, err := dialFrom(t, a, netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		if got := exchange(t, conn, ""); got != "in" {
			t.Errorf("%s: got %q", to, got)
		}
	}
	for _, to := range []string{"198.51.100.7:80", "10.0.2.2:80", "10.0.3.1:80", "[2001:db8::7]:80", "[fd66::2]:80", "[fd67::1]:80"} {
		if c, err := dialFrom(t, a, netip.MustParseAddrPort(to)); err == nil {
			c.Close()
			t.Errorf("connected to %s", to)
		}
		own, err := n.guestFor(netip.MustParseAddrPort(to).Addr(), 4000)
		if err != nil {
			t.Fatal(err)
		}
		id := stack.TransportEndpointID{LocalAddress: address(netip.MustParseAddrPort(to).Addr()), LocalPort: 80, RemoteAddress: address(own.Addr())}
		if n.flowDialer(id) != nil {
			t.Errorf("a flow to %s", to)
		}
	}
}
