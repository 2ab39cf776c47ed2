package usernet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// linkLocal6 is the guest's address that its kernel makes of its MAC.
const linkLocal6 = "fe80::ff:fe00:2"

// solicitation asks the group of an address for it: RFC 4861, section 4.3.
func solicitation(src, target string) []byte {
	group := header.SolicitedNodeAddr(address(netip.MustParseAddr(target)))
	frame := sent{
		proto: header.ICMPv6ProtocolNumber, src: src, dst: fromAddress(group).String(), hops: 255, raw: true,
		payload: slices.Concat([]byte{135, 7: 0}, netip.MustParseAddr(target).AsSlice(), []byte{1, 1}, guestMAC),
	}.bytes()
	return at(frame, 0, []byte(header.EthernetAddressFromMulticastIPv6Address(group))...)
}

// advertisement says who is at an address, with a link address of the guest's whose
// last byte is given: RFC 4861, section 4.4.
func advertisement(src string, link byte) []byte {
	return sent{
		proto: header.ICMPv6ProtocolNumber, src: src, dst: gateway6.String(), hops: 255, raw: true,
		payload: slices.Concat([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, netip.MustParseAddr(src).AsSlice(), []byte{2, 1, 2, 0, 0, 0, 0, link}),
	}.bytes()
}

// icmp6 is a message of the guest's, whose body is enough for each kind.
func icmp6(src, dst string, kind byte) sent {
	return sent{proto: header.ICMPv6ProtocolNumber, src: src, dst: dst, hops: 255, raw: true, payload: slices.Concat([]byte{kind, 60: 0})}
}

// rightSum is a frame of ICMPv6 whose checksum is right, where it can be.
func rightSum(frame []byte) []byte {
	p := header.IPv6(frame[body:])
	if p.NextHeader() != uint8(header.ICMPv6ProtocolNumber) || len(p) < header.IPv6MinimumSize+int(p.PayloadLength()) || p.PayloadLength() < 4 {
		return frame
	}
	m := header.ICMPv6(p.Payload())
	m.SetChecksum(0)
	m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: p.SourceAddress(), Dst: p.DestinationAddress()}))
	return frame
}

// What a guest with IPv6 may send at all.
func TestFilter6(t *testing.T) {
	const neighbour, far = "fd66::77", "2001:db8::7"
	echo := icmp6("", far, 128)
	udp := sent{proto: header.UDPProtocolNumber, dst: far, port: 80, payload: []byte("x")}
	frag := func(p sent, offset uint16, more bool) []byte {
		p.offset, p.more = offset, more
		return p.bytes()
	}
	toGroup := solicitation("fd66::15", gateway6.String())
	direct := at(at(toGroup, 0, gatewayMAC...), body+24, gateway6.AsSlice()...)
	alone, peers := newFilter(with6(Config{})), newFilter(func() Config { c := with6(Config{}); c.Peers = &neighbours{}; return c }())
	none := newFilter(with(Config{}))
	for name, c := range map[string]struct {
		frame           []byte
		alone, withPeer bool
	}{
		"UDP":                               {udp.bytes(), true, true},
		"TCP":                               {sent{proto: header.TCPProtocolNumber, dst: far, port: 80}.bytes(), true, true},
		"ping":                              {echo.bytes(), true, true},
		"answer to ping":                    {icmp6("", far, 129).bytes(), true, true},
		"unreachable":                       {icmp6("", far, 1).bytes(), true, true},
		"too big":                           {icmp6("", far, 2).bytes(), false, false},
		"ping from the link-local address":  {icmp6(linkLocal6, far, 128).bytes(), false, false},
		"ping to a group":                   {icmp6("", "ff02::1", 128).bytes(), false, false},
		"SCTP":                              {sent{proto: 132, dst: far, raw: true, payload: make([]byte, 40)}.bytes(), false, false},
		"hop-by-hop options":                {sent{proto: 0, dst: far, raw: true, payload: []byte{17, 0, 5, 2, 0, 0, 0, 0}}.bytes(), false, false},
		"routing":                           {sent{proto: 43, dst: far, raw: true, payload: []byte{17, 0, 0, 0, 0, 0, 0, 0}}.bytes(), false, false},
		"destination options":               {sent{proto: 60, dst: far, raw: true, payload: []byte{58, 0, 1, 4, 0, 0, 0, 0}}.bytes(), false, false},
		"no next header":                    {sent{proto: 59, dst: far, raw: true, payload: make([]byte, 8)}.bytes(), false, false},
		"router solicitation":               {icmp6("", "ff02::2", 133).bytes(), false, false},
		"router solicitation to us":         {icmp6(linkLocal6, gateway6.String(), 133).bytes(), false, false},
		"router advertisement":              {icmp6(linkLocal6, gateway6.String(), 134).bytes(), false, false},
		"redirect":                          {icmp6(linkLocal6, gateway6.String(), 137).bytes(), false, false},
		"listener query":                    {icmp6(linkLocal6, gateway6.String(), 130).bytes(), false, false},
		"listener report":                   {icmp6("", gateway6.String(), 143).bytes(), false, false},
		"time exceeded":                     {icmp6("", gateway6.String(), 3).bytes(), false, false},
		"fragment of UDP":                   {frag(udp, 0, true), true, true},
		"fragment of ping":                  {frag(echo, 0, true), true, true},
		"later fragment":                    {frag(echo, 8, false), true, true},
		"fragment of an advertisement":      {frag(icmp6("", gateway6.String(), 134), 0, true), false, false},
		"fragment of a solicitation":        {frag(icmp6("", gateway6.String(), 135), 0, true), false, false},
		"fragment of a fragment":            {frag(sent{proto: 44, dst: far, raw: true, payload: make([]byte, 16)}, 0, true), false, false},
		"fragment of options":               {frag(sent{proto: 60, dst: far, raw: true, payload: make([]byte, 16)}, 8, true), false, false},
		"fragment of nothing":               {frag(sent{proto: 58, dst: far, raw: true}, 0, true), false, false},
		"fragment header cut off":           {sent{proto: 44, dst: far, raw: true, payload: []byte{17, 0, 0}}.bytes(), false, false},
		"who has the gateway":               {toGroup, true, true},
		"who has it, asked directly":        {direct, true, true},
		"from the link-local address":       {solicitation(linkLocal6, gateway6.String()), true, true},
		"who has a neighbour":               {solicitation("fd66::15", neighbour), false, true},
		"who has its own address":           {solicitation("fd66::15", "fd66::15"), false, false},
		"does anybody have its own address": {solicitation("::", "fd66::15"), false, false},
		"who has an address elsewhere":      {solicitation("fd66::15", far), false, false},
		"who has a link-local address":      {solicitation("fd66::15", "fe80::1"), false, false},
		"somebody else asks":                {solicitation(neighbour, gateway6.String()), false, false},
		"another link-local one asks":       {solicitation("fe80::1", gateway6.String()), false, false},
		"for another link":                  {at(toGroup, len(toGroup)-1, 9), false, false},
		"with another option":               {at(toGroup, len(toGroup)-8, 14), false, false},
		"to another group":                  {at(toGroup, body+39, 9), false, false},
		"by another group's link address":   {at(toGroup, 5, 9), false, false},
		"by everybody's":                    {at(toGroup, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), false, false},
		"cut off":                           {toGroup[:len(toGroup)-1], false, false},
		"I am here":                         {advertisement("fd66::15", 2), true, true},
		"with my link-local address":        {advertisement(linkLocal6, 2), true, true},
		"I am at another link":              {advertisement("fd66::15", 9), false, false},
		"I am the gateway":                  {advertisement(gateway6.String(), 2), false, false},
		"I am a neighbour":                  {advertisement(neighbour, 2), false, false},
		"a neighbour is here":               {at(advertisement("fd66::15", 2), body+40+8+15, 0x77), false, false},
		"from another device":               {at(toGroup, srcMAC, 2, 0, 0, 0, 0, 9), false, false},
	} {
		if got := alone.admits(c.frame); got != c.alone {
			t.Errorf("%s: admitted alone: %v", name, got)
		}
		if got := peers.admits(c.frame); got != c.withPeer {
			t.Errorf("%s: admitted with others: %v", name, got)
		}
		if none.admits(c.frame) {
			t.Errorf("%s: admitted in a network without IPv6", name)
		}
	}
}

// The guest hears of the gateway and of its neighbours, each time of the gateway's link
// address, and of nobody else.
func TestSolicitation(t *testing.T) {
	c := with6(Config{})
	c.Peers = &neighbours{}
	_, _, guest := rawNetworkOf(t, c)
	for _, target := range []string{"fd66::15", "2001:db8::7", "fe80::1", "fd66::77", "fd66::2"} {
		guest.Write(solicitation("fd66::15", target))
	}
	for _, target := range []string{"fd66::77", "fd66::2"} {
		got := receive(t, guest)
		p := header.IPv6(got[body:])
		want := slices.Concat([]byte{0x60, 0, 0, 0}, netip.MustParseAddr(target).AsSlice(), []byte{2, 1}, gatewayMAC)
		if !bytes.Equal(got[:body], slices.Concat(guestMAC, gatewayMAC, []byte{0x86, 0xdd})) || p.HopLimit() != 255 ||
			fromAddress(p.SourceAddress()).String() != target || p.Payload()[0] != 136 || !bytes.Equal(p.Payload()[4:], want) {
			t.Errorf("who has %s: %x", target, got)
		}
	}
	guest.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if k, err := guest.Read(make([]byte, 1500)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more frame: %d bytes, %v", k, err)
	}
}

// However many addresses a guest says to have, the stack keeps what it has.
func TestNeighbourCache(t *testing.T) {
	n, _, guest := rawNetwork(t)
	icmpTo(t, guest, echoTo(gateway6.String(), 9, 1, nil)) // which asks for its link address
	for i := range 1000 {
		src := fmt.Sprintf("fd66::1:%x", i)
		guest.Write(solicitation(src, gateway6.String()))
		guest.Write(advertisement(src, 2))
		guest.Write(icmp6(fmt.Sprintf("fe80::1:%x", i), gateway6.String(), 134).bytes())
	}
	guest.Write(solicitation(linkLocal6, gateway6.String()))
	icmpTo(t, guest, echoTo(gateway6.String(), 9, 2, nil)) // all before has been seen
	all, err := n.stack.Neighbors(nic, header.IPv6ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if addr := fromAddress(e.Addr).String(); addr != "fd66::15" && addr != linkLocal6 || string(e.LinkAddr) != string(guestMAC) {
			t.Errorf("%s at %s", addr, e.LinkAddr)
		}
	}
	if len(all) != 2 {
		t.Errorf("%d neighbours", len(all))
	}
}

// toTarget changes nothing but what it has to, and the checksum stays what it was.
func TestToTarget(t *testing.T) {
	frame := solicitation("fd66::15", "fd66::77")
	want := bytes.Clone(frame)
	copy(want[body+24:], netip.MustParseAddr("fd66::77").AsSlice())
	want = rightSum(want)
	if toTarget(frame); !bytes.Equal(frame, want) {
		t.Errorf("got  %x\nwant %x", frame, want)
	}
	wrong := solicitation("fd66::15", "fd66::77")
	sum := wrong[body+42:]
	binary.BigEndian.PutUint16(sum, binary.BigEndian.Uint16(sum)+1)
	toTarget(wrong)
	if bytes.Equal(wrong, want) {
		t.Error("a wrong checksum became a right one")
	}
	for _, other := range [][]byte{arpFrame(1, "10.0.2.15", "10.0.2.2"), sent{proto: header.UDPProtocolNumber, dst: elsewhere6.String(), port: 80}.bytes()} {
		want := bytes.Clone(other)
		if toTarget(other); !bytes.Equal(other, want) {
			t.Errorf("%x became %x", want, other)
		}
	}
}
