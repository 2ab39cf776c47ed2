package usernet

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

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
	for _, to := range []string{"169.254.169.254", "10.0.2.2"} {
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
