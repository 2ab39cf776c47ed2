package usernet

import (
	"bytes"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pinger is a program in the guest that pings an address.
type pinger struct {
	*datagrams
	to tcpip.FullAddress
}

func pingerIn(t *testing.T, s *stack.Stack, to string) pinger {
	t.Helper()
	var wq waiter.Queue
	ep, err := s.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &wq)
	if err != nil {
		t.Fatal(err)
	}
	p := pinger{newDatagrams(&wq, ep), full(netip.AddrPortFrom(netip.MustParseAddr(to), 0))}
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
		if _, err := p.ep.Write(bytes.NewReader(b), tcpip.WriteOptions{To: &p.to}); err != nil {
			t.Fatal(err)
		}
		var got []byte
		err := p.Receive(time.Now().Add(2*time.Second), &relay.Buffers{}, func(b []byte) error { got = bytes.Clone(b); return nil })
		if err != nil {
			continue
		}
		if h := header.ICMPv4(got); h.Type() != header.ICMPv4EchoReply || h.Sequence() != sequence || !bytes.Equal(got[header.ICMPv4MinimumSize:], payload) {
			t.Fatalf("sequence %d of %d bytes: got type %d, sequence %d, %d bytes", sequence, len(payload), h.Type(), h.Sequence(), len(got))
		}
		return
	}
	t.Fatalf("sequence %d of %d bytes is not answered", sequence, len(payload))
}

func TestPingPeer(t *testing.T) {
	var all neighbours
	n, a := all.member(t, "10.0.2.20", Config{})
	all.member(t, "10.0.2.21", Config{})
	all.member(t, "10.0.2.22", Config{})
	// The same identifier to two guests, and another one to the first.
	for _, p := range []pinger{pingerIn(t, a, "10.0.2.21"), pingerIn(t, a, "10.0.2.22"), pingerIn(t, a, "10.0.2.21")} {
		p.ping(t, 1, nil)
		p.ping(t, 2, []byte("more"))
		p.ping(t, 3, bytes.Repeat([]byte("x"), 20_000)) // in fragments
	}
	if got := n.flows.Len(); got != 3 {
		t.Errorf("%d flows, want 3", got)
	}
	pingerIn(t, a, gateway.String()).ping(t, 1, []byte("gateway")) // no flow
	if got := n.flows.Len(); got != 3 {
		t.Errorf("%d flows after a ping of the gateway, want 3", got)
	}
	n.Close()
	if len(n.pings.all) != 0 || !n.pings.room.TryAcquire(echoRoom) {
		t.Errorf("after the end: %d flows, or their requests", len(n.pings.all))
	}
}

// icmpTo sends a frame as the guest until a message of ICMP comes back.
func icmpTo(t *testing.T, guest *os.File, frame []byte) header.IPv4 {
	t.Helper()
	if _, err := guest.Write(frame); err != nil {
		t.Fatal(err)
	}
	for {
		got := receive(t, guest)
		switch {
		case got[frameType] == 8 && got[frameType+1] == 6:
			guest.Write(arpFrame(2, "10.0.2.15", "10.0.2.2"))
		case got[frameType] == 8 && got[frameType+1] == 0 && got[body+9] == byte(header.ICMPv4ProtocolNumber):
			return header.IPv4(got[body:])
		}
	}
}

// Whom the guest may not reach it is told of, by the gateway, in the words of RFC
// 1812, section 5.2.7.1; and no socket is opened.
func TestPingDenied(t *testing.T) {
	for to, want := range map[string]header.ICMPv4Code{
		"169.254.169.254": header.ICMPv4AdminProhibited, "127.0.0.1": 0, "224.0.0.1": 0, "255.255.255.255": 0,
		"10.0.2.99":        header.ICMPv4AdminProhibited, // in its network, where it has no peers
		elsewhere.String(): header.ICMPv4HostUnreachable, // the test lets nobody be reached
	} {
		_, seen, guest := rawNetwork(t)
		request := sent{proto: header.ICMPv4ProtocolNumber, dst: to, raw: true, payload: echoRequest(9, 1, []byte("payload"))}.bytes()
		if want == 0 { // not answered: RFC 1122, section 3.2.2; loopback is taken for forged
			guest.Write(request)
			request = sent{proto: header.ICMPv4ProtocolNumber, dst: gateway.String(), raw: true, payload: echoRequest(9, 2, nil)}.bytes()
		}
		got := icmpTo(t, guest, request)
		h := header.ICMPv4(got.Payload())
		switch {
		case want == 0:
			if h.Type() != header.ICMPv4EchoReply || h.Sequence() != 2 {
				t.Errorf("%s: type %d, code %d", to, h.Type(), h.Code())
			}
		case h.Type() != header.ICMPv4DstUnreachable || h.Code() != want || fromAddress(got.SourceAddress()) != gateway:
			t.Errorf("%s: type %d, code %d from %s", to, h.Type(), h.Code(), got.SourceAddress())
		case !bytes.Equal(got.Payload()[header.ICMPv4MinimumSize:], request[body:body+header.IPv4MinimumSize+8]):
			t.Errorf("%s: quotes %x", to, got.Payload()[header.ICMPv4MinimumSize:])
		}
		if checksum.Checksum(got.Payload(), 0) != 0xffff {
			t.Errorf("%s: wrong checksum", to)
		}
		if to != elsewhere.String() && len(seen.list()) != 0 {
			t.Errorf("%s: connections to %v", to, seen.list())
		}
	}
}

// Nobody has the address in its network: the other guests' supervisors say so.
func TestPingNobody(t *testing.T) {
	var all neighbours
	c := with(Config{Peers: &all})
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	got := icmpTo(t, guest, sent{proto: header.ICMPv4ProtocolNumber, dst: "10.0.2.99", raw: true, payload: echoRequest(9, 1, nil)}.bytes())
	if h := header.ICMPv4(got.Payload()); h.Type() != header.ICMPv4DstUnreachable || h.Code() != header.ICMPv4HostUnreachable {
		t.Errorf("type %d, code %d", h.Type(), h.Code())
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
		if e := n.pings.add(n, pingKey{elsewhere, ident}, big); e == nil {
			t.Fatal("two flows are one")
		}
	}
	queued := 0
	for _, e := range n.pings.all {
		queued += len(e.requests)
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
