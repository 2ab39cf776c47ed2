package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sys/unix"
)

var (
	front = strings.Repeat("ab", networkSize)
	back  = strings.Repeat("cd", networkSize)
	here  = netip.MustParsePrefix("10.66.0.2/24")
	other = netip.MustParseAddrPort("10.66.0.3:5000")

	here6  = netip.MustParsePrefix("fd66::2/64")
	other6 = netip.MustParseAddrPort("[fd66::3]:5000")
)

// loopback is a guest: what it listens at is on loopback.
type loopback struct{ from chan<- netip.AddrPort }

func (l loopback) DialTCP(ctx context.Context, from netip.AddrPort, port uint16) (relay.Stream, error) {
	if l.from != nil {
		l.from <- from
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	return relay.TCP{TCPConn: c.(*net.TCPConn)}, nil
}

func (l loopback) DialUDP(_ context.Context, _ netip.AddrPort, port uint16) (relay.Socket, error) {
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		return nil, err
	}
	return relay.UDP{UDPConn: c}, nil
}

func (l loopback) DialPing(_ context.Context, from netip.Addr) (relay.Socket, error) {
	if l.from != nil {
		l.from <- netip.AddrPortFrom(from, 0)
	}
	return mirror{make(chan []byte, 1), make(chan struct{}), new(sync.Once)}, nil
}

// mirror gives back what is written to it.
type mirror struct {
	messages chan []byte
	done     chan struct{}
	once     *sync.Once
}

func (m mirror) Write(b []byte) (int, error) {
	m.messages <- bytes.Clone(b)
	return len(b), nil
}

func (m mirror) Receive(until time.Time, _ *relay.Buffers, f func([]byte) error) error {
	select {
	case b := <-m.messages:
		return f(b)
	case <-m.done:
		return net.ErrClosed
	case <-time.After(time.Until(until)):
		return os.ErrDeadlineExceeded
	}
}

func (m mirror) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

// serving is a supervisor with a guest in the network front.
func serving(t *testing.T, g Guest, l Limits) (s *Server, socket string) {
	t.Helper()
	// Deeper than a socket's path may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s, err = Listen(fmt.Sprintf("/proc/self/fd/%d/peer.sock", f.Fd()), l, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	member := Member{
		Network: front, Address: here, Gateway: netip.MustParseAddr("10.66.0.1"), Address6: here6, Gateway6: netip.MustParseAddr("fd66::1"), Guest: g,
	}
	if err := s.Serve([]Member{member}); err != nil {
		t.Fatal(err)
	}
	return s, filepath.Join(dir, "peer.sock")
}

// request is a good one, to a port.
func request(port uint16) Request {
	return Request{Network: front, From: other, To: netip.AddrPortFrom(here.Addr(), port)}
}

// server runs serve on each connection to a port of the guest.
func server(t *testing.T, serve func(*net.TCPConn)) uint16 {
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
			go serve(c.(*net.TCPConn))
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func dialTCP(t *testing.T, socket string, r Request) (relay.Stream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return DialTCP(ctx, socket, r)
}

func mustDial(t *testing.T, socket string, r Request) relay.Stream {
	t.Helper()
	c, err := dialTCP(t, socket, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStream(t *testing.T) {
	from := make(chan netip.AddrPort, 1)
	_, socket := serving(t, loopback{from}, full())
	port := server(t, func(c *net.TCPConn) { // answers after the end of what it gets
		b, _ := io.ReadAll(c)
		c.Write(append([]byte("got "), b...))
		c.Close()
	})
	c := mustDial(t, socket, request(port))
	if got := <-from; got != other {
		t.Errorf("the guest was to see %s, want %s", got, other)
	}
	text := bytes.Repeat([]byte("0123456789"), 100_000)
	if _, err := c.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	small := make([]byte, 3) // does not hold a message
	if _, err := io.ReadFull(c, small); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(c)
	if err != nil || string(small)+string(rest) != "got "+string(text) {
		t.Errorf("%d bytes came back, %v", len(small)+len(rest), err)
	}
}

// A connection that breaks in one guest is no end in the other.
func TestResets(t *testing.T) {
	_, socket := serving(t, loopback{}, full())
	c := mustDial(t, socket, request(server(t, func(c *net.TCPConn) {
		c.Write([]byte("half"))
		c.SetLinger(0)
		c.Read(make([]byte, 1))
		c.Close()
	})))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 9)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after a reset: %v", err)
	}
	seen := make(chan error, 1)
	d := mustDial(t, socket, request(server(t, func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		seen <- err
	})))
	d.Write([]byte("half"))
	d.Reset()
	if err := <-seen; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the guest saw %v, want a reset", err)
	}
}

func echoing(t *testing.T) uint16 {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	return uint16(pc.LocalAddr().(*net.UDPAddr).Port)
}

func TestDatagrams(t *testing.T) {
	_, socket := serving(t, loopback{}, full())
	port := echoing(t)
	c, err := DialUDP(t.Context(), socket, request(port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, text := range []string{"a", "", strings.Repeat("x", 65507)} {
		if err := echoed(c, text); err != nil {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
	err = c.Receive(time.Now().Add(time.Millisecond), &relay.Buffers{}, func([]byte) error { return nil })
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing to receive: %v", err)
	}
}

func TestPing(t *testing.T) {
	from := make(chan netip.AddrPort, 1)
	_, socket := serving(t, loopback{from}, full())
	r := request(0)
	r.From = netip.AddrPortFrom(other.Addr(), 0)
	c, err := DialPing(t.Context(), socket, r)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-from; got != r.From {
		t.Errorf("the guest was to see %s, want %s", got, r.From)
	}
	if err := echoed(c, "a message of ICMP"); err != nil {
		t.Error(err)
	}
	for _, bad := range []Request{request(80), request(0)} { // with ports
		if c, err := DialPing(t.Context(), socket, bad); !errors.Is(err, ErrRefused) {
			t.Errorf("from %s to %s: %v", bad.From, bad.To, err)
			c.Close()
		}
	}
}

func echoed(c relay.Socket, text string) error {
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	return c.Receive(time.Now().Add(time.Minute), &relay.Buffers{}, func(b []byte) error {
		if string(b) != text {
			return fmt.Errorf("%d bytes came back", len(b))
		}
		return nil
	})
}

// Nobody there: at the port, in the network, at the socket.
// A guest with IPv6 is asked for at either address, by the other's of that family. One
// without has none that anybody could ask for.
func TestIPv6(t *testing.T) {
	from := make(chan netip.AddrPort, 1)
	_, socket := serving(t, loopback{from}, full())
	r := request(server(t, func(c *net.TCPConn) { c.Close() }))
	r.From, r.To = other6, netip.AddrPortFrom(here6.Addr(), r.To.Port())
	c, err := dialTCP(t, socket, r)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-from; got != other6 {
		t.Errorf("TCP: the guest was to see %s, want %s", got, other6)
	}
	r.From, r.To = netip.AddrPortFrom(other6.Addr(), 0), netip.AddrPortFrom(here6.Addr(), 0)
	p, err := DialPing(t.Context(), socket, r)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := <-from; got != r.From {
		t.Errorf("ping: the guest was to see %s, want %s", got, r.From)
	}
	if (Member{Address: here}).has(here6.Addr(), other6.Addr()) {
		t.Error("a guest without IPv6 has an address of it")
	}
}

func TestRefused(t *testing.T) {
	_, socket := serving(t, loopback{}, full())
	const free = 1 // tcpmux's, and no number that another program may get
	stale := filepath.Join(t.TempDir(), "stale.sock")
	gone, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: stale, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	gone.SetUnlinkOnClose(false)
	gone.Close()
	open := server(t, func(c *net.TCPConn) { c.Close() })
	with := func(change func(*Request)) Request {
		r := request(open)
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		socket string
		r      Request
	}{
		"port":           {socket, request(free)},
		"network":        {socket, with(func(r *Request) { r.Network = back })},
		"address":        {socket, with(func(r *Request) { r.To = netip.MustParseAddrPort("10.66.0.9:80") })},
		"from outside":   {socket, with(func(r *Request) { r.From = netip.MustParseAddrPort("10.67.0.3:5000") })},
		"from loopback":  {socket, with(func(r *Request) { r.From = netip.MustParseAddrPort("127.0.0.1:5000") })},
		"from IPv6":      {socket, with(func(r *Request) { r.From = netip.MustParseAddrPort("[fd66::3]:5000") })},
		"as the gateway": {socket, with(func(r *Request) { r.From = netip.MustParseAddrPort("10.66.0.1:5000") })},
		"IPv6 from IPv4": {socket, with(func(r *Request) { r.To = netip.AddrPortFrom(here6.Addr(), open) })},
		"other in IPv6":  {socket, with(func(r *Request) { r.From, r.To = other6, netip.AddrPortFrom(netip.MustParseAddr("fd66::9"), open) })},
		"beyond IPv6": {socket, with(func(r *Request) {
			r.From, r.To = netip.MustParseAddrPort("[fd67::3]:5000"), netip.AddrPortFrom(here6.Addr(), open)
		})},
		"as gateway6": {socket, with(func(r *Request) {
			r.From, r.To = netip.MustParseAddrPort("[fd66::1]:5000"), netip.AddrPortFrom(here6.Addr(), open)
		})},
		"as itself":    {socket, with(func(r *Request) { r.From = netip.AddrPortFrom(here.Addr(), 5000) })},
		"no port":      {socket, with(func(r *Request) { r.From = netip.AddrPortFrom(other.Addr(), 0) })},
		"dead socket":  {stale, request(open)},
		"no socket":    {filepath.Join(filepath.Dir(socket), "none.sock"), request(open)},
		"no container": {filepath.Join(t.TempDir(), "gone", "peer.sock"), request(open)},
	} {
		if c, err := dialTCP(t, c.socket, c.r); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

// TestBecome: a guest that has left its network is a stranger there, and one that has
// come into another is not.
func TestBecome(t *testing.T) {
	s, socket := serving(t, loopback{}, full())
	port := server(t, func(c *net.TCPConn) { c.Close() })
	mustDial(t, socket, request(port))
	s.Become([]Member{{Network: back, Address: here, Gateway: netip.MustParseAddr("10.66.0.1"), Guest: loopback{}}})
	if _, err := dialTCP(t, socket, request(port)); !errors.Is(err, ErrRefused) {
		t.Errorf("in the network that it has left: %v", err)
	}
	r := request(port)
	r.Network = back
	mustDial(t, socket, r)
	s.Become(nil)
	if _, err := dialTCP(t, socket, r); !errors.Is(err, ErrRefused) {
		t.Errorf("in none: %v", err)
	}
}
