package publish

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// udpGuest answers each datagram with the address that it came from and itself.
func udpGuest(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(anyPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			k, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(append([]byte(from.String()+" "), buf[:k]...), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// ask sends a datagram from a socket to an address and returns who answers what.
func ask(t *testing.T, c *net.UDPConn, to netip.AddrPort, text string) (from netip.AddrPort, answer string) {
	t.Helper()
	buf := make([]byte, maxDatagram)
	for range 6 { // datagrams may be lost; an answer that comes late is one to the next question
		if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if k, from, err := c.ReadFromUDPAddrPort(buf); err == nil {
			return from, string(buf[:k])
		}
	}
	t.Fatalf("no answer from %s", to)
	return
}

func client(t *testing.T, network string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// The answer comes from the address that was asked, and one client that asks
// two addresses is two peers.
func TestAnswersFromWhatWasAsked(t *testing.T) {
	unspecified := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	for name, p := range map[string]Port{
		"every address": {Proto: "udp", Host: unspecified, Any: true},
		"IPv4":          {Proto: "udp", Host: unspecified},
		"one address":   {Proto: "udp", Host: anyPort},
	} {
		p.Guest = udpGuest(t)
		s := serve(t, Limits{Flows: 8}, p)
		at := s.Ports()[0]
		asked := []string{"127.0.0.1", "127.0.0.3", "127.0.0.1"}
		if p.Host == anyPort {
			asked = asked[:1]
		}
		if at.Any {
			asked = append(asked, "::1")
		}
		flows := map[string]string{}
		for _, a := range asked {
			addr := netip.MustParseAddr(a)
			c := client(t, map[bool]string{true: "udp4", false: "udp6"}[addr.Is4()])
			from, answer := ask(t, c, netip.AddrPortFrom(addr, at.Host.Port()), "hello")
			if from.Addr() != addr || !strings.HasSuffix(answer, " hello") {
				t.Errorf("%s: %s answers for %s: %q", name, from, a, answer)
			}
			flows[answer] = a
		}
		c := client(t, "udp4")
		seen := map[string]bool{}
		for _, a := range asked[:min(2, len(asked))] {
			_, answer := ask(t, c, netip.AddrPortFrom(netip.MustParseAddr(a), at.Host.Port()), "x")
			seen[answer] = true
		}
		if len(seen) != min(2, len(asked)) {
			t.Errorf("%s: the guest has one flow for two addresses: %v", name, seen)
		}
	}
}

// One client too many ends the flow of another, who gets a new one; TCP has its
// places for itself.
func TestLimitOfFlows(t *testing.T) {
	s := serve(t, Limits{Flows: 1, Streams: 1},
		Port{Proto: "tcp", Host: anyPort, Guest: guest(t, echo)}, Port{Proto: "udp", Host: anyPort, Guest: udpGuest(t)})
	tcp := dial(t, s)
	a, b := client(t, "udp4"), client(t, "udp4")
	at := s.Ports()[1].Host
	_, first := ask(t, a, at, "x")
	if _, again := ask(t, a, at, "x"); again != first {
		t.Errorf("the guest has two flows of one client: %s, %s", first, again)
	}
	ask(t, b, at, "x")
	if got := s.flows.Len(); got != 1 {
		t.Errorf("%d flows", got)
	}
	ask(t, a, at, "x")
	tcp.CloseWrite()
	if _, err := tcp.Read(make([]byte, 1)); err == nil || errors.Is(err, unix.ECONNRESET) {
		t.Errorf("TCP: %v", err)
	}
}

// Nobody keeps more than the latest: flows end with their server.
func TestFlowsEnd(t *testing.T) {
	s := serve(t, Limits{Flows: 8}, Port{Proto: "udp", Host: anyPort, Guest: udpGuest(t)})
	for range 20 {
		ask(t, client(t, "udp4"), s.Ports()[0].Host, "x")
	}
	s.Close()
	if got := s.flows.Len(); got != 0 {
		t.Errorf("%d flows are left", got)
	}
}
