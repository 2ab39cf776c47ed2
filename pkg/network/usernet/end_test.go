package usernet

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/publish"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// server accepts connections on loopback and hands them over.
func server(t *testing.T) (port uint16, accepted <-chan *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	out := make(chan *net.TCPConn, 100)
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			out <- c
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port), out
}

// A connection that breaks on one side breaks on the other: half of something
// must not look like all of it.
func TestResets(t *testing.T) {
	_, guest := network(t, Config{})
	port, accepted := server(t)
	open := func() (*gonet.TCPConn, *net.TCPConn) {
		c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, port))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		s := <-accepted
		s.SetDeadline(time.Now().Add(time.Minute))
		return c, s
	}
	c, s := open()
	s.SetLinger(0)
	s.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the guest saw %v", err)
	}
	c.Close()

	c, s = open()
	io.WriteString(s, "unread") // closing with that in the queue is a reset
	time.Sleep(50 * time.Millisecond)
	c.Close()
	for err := error(nil); ; _, err = s.Write(make([]byte, 1000)) {
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
			t.Errorf("the server saw %v", err)
		}
		return
	}
}

// ours are the goroutines that are not the test's.
func ours() (list []string) {
	buf := make([]byte, 1<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if (strings.Contains(g, "/pkg/network/") || strings.Contains(g, "gvisor.dev")) && !strings.Contains(g, "_test.go") && !strings.Contains(g, "testing.") {
			list = append(list, g)
		}
	}
	return list
}

// Close in the middle of everything leaves nothing.
func TestCloseUnderLoad(t *testing.T) {
	if before := settled(0); before != "" {
		t.Fatalf("of another test:\n%s", before)
	}
	n, err := New(with(Config{Ports: []publish.Port{
		{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80},
		{Proto: "udp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	n.reroute = func(to netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
	}
	host, end := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	guest, stop := newGuest(t, end)
	load(t, n, guest)
	started := time.Now()
	n.Close()
	// No connection lingers: what is under way is given up.
	if took := time.Since(started); took >= lingerTime {
		t.Errorf("Close took %s", took)
	}
	stop()
	if left := settled(0); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// settled waits until no more than some goroutines are there, or tells them.
func settled(want int) string {
	var list []string
	for range 6000 {
		if list = ours(); len(list) <= want {
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
	return strings.Join(list, "\n\n")
}

// load makes traffic of every kind, and leaves it going.
func load(t *testing.T, n *Network, guest *stack.Stack) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go echoDatagrams(pc)
	to := full(netip.AddrPortFrom(elsewhere, uint16(pc.LocalAddr().(*net.UDPAddr).Port)))
	for range 10 {
		c, err := gonet.DialUDP(guest, nil, &to, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		datagram(t, c, "ping")
		u, err := net.Dial("udp", n.Published()[1].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		u.Write([]byte("to nobody"))
		t.Cleanup(func() { c.Close(); u.Close() })
	}
	port, accepted := server(t)
	talk := func(c net.Conn) {
		go io.Copy(io.Discard, c)
		for b := make([]byte, 10_000); ; {
			if _, err := c.Write(b); err != nil {
				c.Close()
				return
			}
		}
	}
	for range 10 {
		c, err := dialFrom(t, guest, netip.AddrPortFrom(elsewhere, port))
		if err != nil {
			t.Fatal(err)
		}
		go talk(c)
		go talk(<-accepted)
	}
	l, err := gonet.ListenTCP(guest, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for range 10 {
		c, err := net.Dial("tcp", n.Published()[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		g, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go talk(c)
		go talk(g)
	}
	// One that the guest is in the middle of making, to one who never answers.
	go gonet.DialTCP(guest, full(netip.AddrPortFrom(netip.MustParseAddr("10.0.2.99"), 1)), ipv4.ProtocolNumber)
}

// The end of a network is nothing that its log has to tell.
func TestSilentEnd(t *testing.T) {
	var log strings.Builder
	n, _ := network(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	n.Close()
	if log.Len() > 0 {
		t.Errorf("%s", log.String())
	}
}
