package usernet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pinger is a program in the guest that pings an address.
type pinger struct {
	*datagrams
	to   tcpip.FullAddress
	kind icmpKind
}

func pingerIn(t *testing.T, s *stack.Stack, to string) pinger {
	t.Helper()
	var wq waiter.Queue
	addr := netip.MustParseAddr(to)
	kind := icmpFor(addr)
	ep, err := s.NewEndpoint(kind.transport, kind.network, &wq)
	if err != nil {
		t.Fatal(err)
	}
	p := pinger{newDatagrams(&wq, ep), full(netip.AddrPortFrom(addr, 0)), kind}
	t.Cleanup(func() { p.Close() })
	if err := ep.Connect(p.to); err != nil {
		t.Fatal(err)
	}
	return p
}

func echoRequest(ident, sequence uint16, payload []byte) []byte {
	h := make(header.ICMPv4, header.ICMPv4MinimumSize)
	h.SetType(header.ICMPv4Echo)
	h.SetIdent(ident)
	h.SetSequence(sequence)
	h.SetChecksum(header.ICMPv4Checksum(h, checksum.Checksum(payload, 0)))
	return slices.Concat(h, payload)
}

// ping sends requests until one is answered: they may be lost.
func (p pinger) ping(t *testing.T, sequence uint16, payload []byte) {
	t.Helper()
	for range 30 {
		b := echoRequest(0, sequence, payload)
		b[0] = p.kind.request // the stack sets the checksum
		if _, err := p.ep.Write(bytes.NewReader(b), tcpip.WriteOptions{To: &p.to}); err != nil {
			t.Fatal(err)
		}
		var got []byte
		err := p.Receive(time.Now().Add(2*time.Second), &relay.Buffers{}, func(b []byte) error { got = bytes.Clone(b); return nil })
		if err != nil {
			continue
		}
		if h := header.ICMPv4(got); got[0] != p.kind.reply || h.Sequence() != sequence || !bytes.Equal(got[header.ICMPv4MinimumSize:], payload) {
			t.Fatalf("sequence %d of %d bytes: got type %d, sequence %d, %d bytes", sequence, len(payload), h.Type(), h.Sequence(), len(got))
		}
		return
	}
	t.Fatalf("sequence %d of %d bytes is not answered", sequence, len(payload))
}

func TestPingPeer(t *testing.T) {
	var all neighbours
	n, a := all.member(t, 20, Config{})
	all.member(t, 21, Config{})
	all.member(t, 22, Config{})
	// The same identifier to two guests, and another one to the first.
	for _, to := range []string{"10.0.2.21", "10.0.2.22", "10.0.2.21", "fd66::21", "fd66::22", "fd66::21"} {
		p := pingerIn(t, a, to)
		p.ping(t, 1, nil)
		p.ping(t, 2, []byte("more"))
		p.ping(t, 3, bytes.Repeat([]byte("x"), 20_000)) // in fragments
	}
	if got := n.flows.Len(); got != 6 {
		t.Errorf("%d flows, want 6", got)
	}
	pingerIn(t, a, gateway.String()).ping(t, 1, []byte("gateway")) // no flow
	pingerIn(t, a, gateway6.String()).ping(t, 1, []byte("gateway"))
	if got := n.flows.Len(); got != 6 {
		t.Errorf("%d flows after a ping of the gateway, want 6", got)
	}
	n.Close()
	if len(n.pings.all) != 0 || !n.pings.room.TryAcquire(echoRoom) {
		t.Errorf("after the end: %d flows, or their requests", len(n.pings.all))
	}
}

// icmpTo sends a frame as the guest until a message of ICMP comes back, whose checksum
// is right. It tells from whom.
func icmpTo(t *testing.T, guest *os.File, frame []byte) (from netip.Addr, message []byte) {
	t.Helper()
	if _, err := guest.Write(frame); err != nil {
		t.Fatal(err)
	}
	for {
		got := receive(t, guest)
		switch kind := binary.BigEndian.Uint16(got[frameType:]); {
		case kind == uint16(header.ARPProtocolNumber):
			guest.Write(arpFrame(2, "10.0.2.15", "10.0.2.2"))
		case kind == uint16(header.IPv4ProtocolNumber) && got[body+9] == byte(header.ICMPv4ProtocolNumber):
			p := header.IPv4(got[body:])
			if checksum.Checksum(p.Payload(), 0) != 0xffff {
				t.Errorf("wrong checksum of %x", got)
			}
			return fromAddress(p.SourceAddress()), p.Payload()
		case kind == uint16(header.IPv6ProtocolNumber) && got[body+6] == byte(header.ICMPv6ProtocolNumber):
			p := header.IPv6(got[body:])
			if p.Payload()[0] == byte(header.ICMPv6NeighborSolicit) {
				guest.Write(advertisement("fd66::15", 2))
				continue
			}
			if !bytes.Equal(rightSum(bytes.Clone(got)), got) {
				t.Errorf("wrong checksum of %x", got)
			}
			return fromAddress(p.SourceAddress()), p.Payload()
		}
	}
}

// echoTo is an echo request of the guest.
func echoTo(to string, ident, sequence uint16, payload []byte) []byte {
	m, kind := echoRequest(ident, sequence, payload), icmpFor(netip.MustParseAddr(to))
	m[0] = kind.request // which sent's checksum has, of IPv6
	return icmpFrame(to, kind, m)
}

func icmpFrame(to string, kind icmpKind, message []byte) []byte {
	return sent{proto: kind.transport, dst: to, raw: true, payload: message}.bytes()
}

// Whom the guest may not reach it is told of, by the gateway, in the words of RFC
// 1812, section 5.2.7.1, and RFC 4443, section 3.1; and no socket is opened.
func TestPingDenied(t *testing.T) {
	for to, want := range map[string]byte{
		"169.254.169.254": byte(header.ICMPv4AdminProhibited), "127.0.0.1": 0, "224.0.0.1": 0, "255.255.255.255": 0,
		"10.0.2.99":        byte(header.ICMPv4AdminProhibited), // in its network, where it has no peers
		elsewhere.String(): byte(header.ICMPv4HostUnreachable), // the test lets nobody be reached
		"fd00:ec2::254":    byte(header.ICMPv6Prohibited), "fe80::1": byte(header.ICMPv6Prohibited), "::1": 0, "ff02::1": 0, "::ffff:198.51.100.7": 0,
		"fd66::99":          byte(header.ICMPv6Prohibited),
		elsewhere6.String(): byte(header.ICMPv6AddressUnreachable),
	} {
		_, seen, guest := rawNetwork(t)
		kind, near, ip := icmpFor(netip.MustParseAddr(to)), gateway, header.IPv4MinimumSize
		if kind == icmpFor(gateway6) {
			near, ip = gateway6, header.IPv6MinimumSize
		}
		request := echoTo(to, 9, 1, []byte("payload"))
		if want == 0 { // not answered: RFC 1122, section 3.2.2; loopback is taken for forged
			guest.Write(request)
			request = echoTo(near.String(), 9, 2, nil)
		}
		from, m := icmpTo(t, guest, request)
		switch {
		case want == 0:
			if m[0] != kind.reply || m[7] != 2 {
				t.Errorf("%s: type %d, code %d", to, m[0], m[1])
			}
		case m[0] != kind.unreachable || m[1] != want || from != near:
			t.Errorf("%s: type %d, code %d from %s", to, m[0], m[1], from)
		case !bytes.Equal(m[icmpHeader:], request[body:body+ip+8]):
			t.Errorf("%s: quotes %x", to, m[icmpHeader:])
		}
		if !slices.Contains(families, netip.MustParseAddr(to)) && len(seen.list()) != 0 {
			t.Errorf("%s: connections to %v", to, seen.list())
		}
	}
}

// Nobody has the address in its network: the other guests' supervisors say so.
func TestPingNobody(t *testing.T) {
	for _, to := range []string{"10.0.2.99", "fd66::99"} {
		c := with6(Config{})
		c.Peers = &neighbours{}
		_, _, guest := rawNetworkOf(t, c)
		kind := icmpFor(netip.MustParseAddr(to))
		if _, m := icmpTo(t, guest, echoTo(to, 9, 1, nil)); m[0] != kind.unreachable || m[1] != kind.noHost {
			t.Errorf("%s: type %d, code %d", to, m[0], m[1])
		}
	}
}

// The kernel's sockets for echo requests, where it lets us have them.
func TestPingHost(t *testing.T) {
	for _, to := range []string{"127.0.0.1", "::1"} {
		addr := netip.MustParseAddr(to)
		c, err := dialPing(addr)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue // not in net.ipv4.ping_group_range, or no IPv6
		}
		if err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		defer c.Close()
		m, kind := echoRequest(9, 1, []byte("payload")), icmpFor(addr)
		m[0] = kind.request
		if _, err := c.Write(m); err != nil {
			t.Fatal(err)
		}
		err = c.Receive(time.Now().Add(time.Minute), &relay.Buffers{}, func(b []byte) error {
			if b[0] != kind.reply || b[7] != 1 || string(b[icmpHeader:]) != "payload" {
				t.Errorf("%s: got %x", to, b)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// A wrong checksum is not made right, and what is no request goes nowhere.
func TestBrokenPings(t *testing.T) {
	good := echoRequest(9, 1, []byte("x"))
	bad := func(i int, b byte) []byte { m := bytes.Clone(good); m[i] = b; return m }
	var frames [][]byte
	for _, m := range [][]byte{bad(2, good[2]+1), bad(8, 'y'), bad(0, 0), bad(0, 13), good[:7]} {
		frames = append(frames, sent{proto: header.ICMPv4ProtocolNumber, dst: elsewhere.String(), raw: true, payload: m}.bytes())
	}
	good6 := echoTo(elsewhere6.String(), 9, 1, []byte("x"))
	for _, i := range []int{2, 8} { // the checksum, and what it is of
		frames = append(frames, at(good6, body+header.IPv6MinimumSize+i, good6[body+header.IPv6MinimumSize+i]+1))
	}
	for _, kind := range []byte{0, 8, 129, 138} {
		frames = append(frames, icmp6("", elsewhere6.String(), kind).bytes())
	}
	only(t, frames...)
}

// What waits for a far end that does not come is bounded for all flows together.
func TestPingRoom(t *testing.T) {
	n, err := New(with(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	big := make([]byte, 60_000)
	for ident := range uint16(100) {
		if e := n.pings.add(n, pingKey{elsewhere, ident, false}, big); e == nil {
			t.Fatal("two flows are one")
		}
	}
	queued := 0
	for _, e := range n.pings.all {
		queued += len(e.messages)
	}
	if want := echoRoom / len(big); queued != want {
		t.Errorf("%d requests wait, want %d", queued, want)
	}
	for _, e := range slices.Collect(maps.Values(n.pings.all)) {
		e.Close()
		e.Close()
	}
	if !n.pings.room.TryAcquire(echoRoom) {
		t.Error("flows have ended, and their requests wait")
	}
}

// lines are what is logged.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// A flow that has to make room for another one says nothing of who it was to.
func TestPingMakesRoom(t *testing.T) {
	peers, log := silent{make(chan struct{}, 9)}, make(lines, 9)
	c := with6(Config{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	c.Peers = peers
	for _, to := range []string{"10.0.2.77", "fd66::77"} {
		n, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		n.flows = relay.NewFlows(1)
		host, guest := link(t)
		if err := n.Attach(host); err != nil {
			t.Fatal(err)
		}
		for ident := range uint16(2) {
			if _, err := guest.Write(echoTo(to, ident, 1, nil)); err != nil {
				t.Fatal(err)
			}
			<-peers.asked
		}
		if got := <-log; !strings.Contains(got, "refused") {
			t.Fatalf("logged %s", got)
		}
		near, kind := gateway, icmpFor(netip.MustParseAddr(to))
		if kind == icmpFor(gateway6) {
			near = gateway6
		}
		if from, m := icmpTo(t, guest, echoTo(near.String(), 9, 1, nil)); m[0] != kind.reply {
			t.Errorf("%s: type %d, code %d from %s before the gateway's answer", to, m[0], m[1], from)
		}
		n.Close()
		<-log // of the other one
	}
}

// A guest may ask who asks it, under the same identifier: neither hears what is the
// other's.
func TestPingBothWays(t *testing.T) {
	for _, to := range []string{"10.0.2.77", "fd66::77"} {
		peers := silent{make(chan struct{}, 1)}
		c := with6(Config{})
		c.Peers = peers
		n, _, guest := rawNetworkOf(t, c)
		addr := netip.MustParseAddr(to)
		kind := icmpFor(addr)
		other, err := n.FromPeers().DialPing(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		written := make(chan error, 1)
		go func() {
			m := echoRequest(0, 5, []byte("payload"))
			m[0] = kind.request
			_, err := other.Write(m)
			written <- err
		}()
		// What the guest sends is nothing, but for its answers to who asks for its link.
		from, asked := icmpTo(t, guest, ethernetHeader(0xffff))
		if err := <-written; err != nil || from != addr || asked[0] != kind.request || string(asked[icmpHeader:]) != "payload" {
			t.Fatalf("%v: %x from %s", err, asked, from)
		}
		ident := binary.BigEndian.Uint16(asked[icmpIdent:])
		guest.Write(echoTo(to, ident, 1, nil))
		select {
		case <-peers.asked:
		case <-time.After(time.Minute):
			t.Errorf("%s: the guest's request went nowhere", to)
		}
		answer := echoRequest(ident, 5, []byte("payload"))
		answer[0] = kind.reply
		if kind.reply == 0 {
			binary.BigEndian.PutUint16(answer[icmpSum:], 0)
			binary.BigEndian.PutUint16(answer[icmpSum:], ^checksum.Checksum(answer, 0))
		}
		guest.Write(icmpFrame(to, kind, answer))
		err = other.Receive(time.Now().Add(time.Minute), &relay.Buffers{}, func(b []byte) error {
			if b[0] != kind.reply || b[7] != 5 || string(b[icmpHeader:]) != "payload" {
				t.Errorf("%s: got %x", to, b)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", to, err)
		}
		n.Close()
		if err := other.Receive(time.Now().Add(time.Minute), &relay.Buffers{}, nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: after the end: %v", to, err)
		}
		other.Close()
		if len(n.pings.all) != 0 || !n.pings.room.TryAcquire(echoRoom) {
			t.Errorf("%s: after the end: %d flows, or what waits", to, len(n.pings.all))
		}
	}
}
