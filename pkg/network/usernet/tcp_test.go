package usernet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

func TestOutboundTCP(t *testing.T) {
	_, guest := network(t, Config{})
	long := string(bytes.Repeat([]byte("0123456789"), 100_000))
	for _, to := range families {
		c, err := dialFrom(t, guest, netip.AddrPortFrom(to, echo(t)))
		if err != nil {
			t.Fatal(err)
		}
		if got := exchange(t, c, long); got != "got "+long {
			t.Errorf("%s: got %d bytes back, want %d", to, len(got), len(long)+4)
		}
	}
}

func TestDeniedTCP(t *testing.T) {
	port := echo(t)
	_, guest := network(t, Config{}) // reroutes whatever policy lets through to that server
	for _, to := range []string{"169.254.169.254", "10.0.2.2", "fd00:ec2::254", "fd66::2"} {
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
	for _, to := range []string{"127.0.0.1:80", "[::ffff:127.0.0.1]:80", "[::1]:80"} {
		if _, err := n.dialTCP(netip.MustParseAddrPort(to)); !errors.Is(err, errDenied) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

func TestRefusedTCP(t *testing.T) {
	_, guest := network(t, Config{})
	const port = 1 // tcpmux's, and no number that another program may get
	for _, to := range families {
		if _, err := dialFrom(t, guest, netip.AddrPortFrom(to, port)); err == nil {
			t.Errorf("connected to a port of %s where nobody listens", to)
		}
	}
}

func TestHostBehindGateway(t *testing.T) {
	_, guest := network(t, Config{Host: func(netip.Addr) netip.Addr { return elsewhere }})
	for _, to := range []netip.Addr{gateway, gateway6} {
		c, err := dialFrom(t, guest, netip.AddrPortFrom(to, echo(t)))
		if err != nil {
			t.Fatal(err)
		}
		if got := exchange(t, c, "host"); got != "got host" {
			t.Errorf("%s: got %q", to, got)
		}
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
	free := int64(n.limits.streams - len(all))
	if !n.streams.TryAcquire(free) || n.streams.TryAcquire(1) {
		t.Errorf("not one place for each of %d connections that are not over", len(all))
	}
	n.streams.Release(free)
	n.Close()
	if !n.streams.TryAcquire(int64(n.limits.streams)) {
		t.Error("places are taken after the end")
	}
}

func TestLimitOfStreams(t *testing.T) {
	n, guest := network(t, Config{})
	n.streams.TryAcquire(int64(n.limits.streams))
	if c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, echo(t))); err == nil {
		c.Close()
		t.Error("one more connection than the limit")
	}
	n.streams.Release(int64(n.limits.streams))
	c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, echo(t)))
	if err != nil {
		t.Fatalf("after the limit: %v", err)
	}
	exchange(t, c, "again")
}

// A server that closes first does not keep the guest from coming again from the
// same port, and nothing of the connections stays.
func TestSamePortAgain(t *testing.T) {
	n, guest := network(t, Config{})
	port, accepted := server(t)
	go func() {
		for c := range accepted {
			c.Close()
		}
	}()
	before := len(n.stack.RegisteredEndpoints())
	from, to := full(netip.AddrPortFrom(guestNet.Addr(), 5000)), full(netip.AddrPortFrom(elsewhere, port))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c, err := gonet.DialTCPWithBind(ctx, guest, from, to, ipv4.ProtocolNumber)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
		fewEndpoints(t, guest, 0)
	}
	fewEndpoints(t, n.stack, before)
}

// fewEndpoints waits until a stack has no more than most.
func fewEndpoints(t *testing.T, s *stack.Stack, most int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(s.RegisteredEndpoints()) > most; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d endpoints, want %d", len(s.RegisteredEndpoints()), most)
		}
	}
}
