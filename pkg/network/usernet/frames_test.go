package usernet

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// sent is a packet that a guest makes up, of IPv4 or IPv6 as its destination is.
type sent struct {
	proto    tcpip.TransportProtocolNumber
	src, dst string
	port     uint16
	payload  []byte // of UDP
	offset   uint16 // of a fragment, in bytes
	more     bool   // fragments follow
	raw      bool   // payload is all that is in the packet
	hops     uint8  // of IPv6, 64 if 0
}

// bytes is the frame of the packet.
func (p sent) bytes() []byte {
	if strings.Contains(p.dst, ":") {
		return p.bytes6()
	}
	body := p.payload
	if !p.raw {
		body = p.transport()
	}
	ip := make(header.IPv4, header.IPv4MinimumSize)
	src := p.src
	if src == "" {
		src = guestNet.Addr().String()
	}
	var flags uint8
	if p.more {
		flags = header.IPv4FlagMoreFragments
	}
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip) + len(body)), ID: 7, TTL: 64, Protocol: uint8(p.proto), Flags: flags, FragmentOffset: p.offset,
		SrcAddr: address(netip.MustParseAddr(src)), DstAddr: address(netip.MustParseAddr(p.dst)),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	return slices.Concat(ethernetHeader(header.IPv4ProtocolNumber), ip, body)
}

func (p sent) bytes6() []byte {
	src := p.src
	if src == "" {
		src = guestNet6.Addr().String()
	}
	proto, body := p.proto, p.payload
	if !p.raw {
		body = p.transport()
	}
	from, to := address(netip.MustParseAddr(src)), address(netip.MustParseAddr(p.dst))
	switch {
	case p.offset > 0 || p.more: // of what is whole already
		last := p.offset &^ 7
		if p.more {
			last |= 1
		}
		proto, body = header.IPv6FragmentHeader, slices.Concat([]byte{byte(proto), 0, byte(last >> 8), byte(last), 0, 0, 0, 7}, body)
	case proto == header.ICMPv6ProtocolNumber && len(body) >= 4:
		body = bytes.Clone(body)
		header.ICMPv6(body).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: body, Src: from, Dst: to}))
	case proto == header.UDPProtocolNumber && !p.raw:
		sum := header.PseudoHeaderChecksum(proto, from, to, uint16(len(body)))
		header.UDP(body).SetChecksum(^checksum.Checksum(body, sum))
	}
	ip := make(header.IPv6, header.IPv6MinimumSize)
	ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(body)), TransportProtocol: proto, HopLimit: cmp.Or(p.hops, 64), SrcAddr: from, DstAddr: to})
	return slices.Concat(ethernetHeader(header.IPv6ProtocolNumber), ip, body)
}

func (p sent) transport() []byte {
	if p.proto == header.UDPProtocolNumber {
		u := make(header.UDP, header.UDPMinimumSize)
		u.Encode(&header.UDPFields{SrcPort: 4000, DstPort: p.port, Length: uint16(len(u) + len(p.payload))})
		return slices.Concat(u, p.payload)
	}
	t := make(header.TCP, header.TCPMinimumSize)
	t.Encode(&header.TCPFields{SrcPort: 4000 + p.port, DstPort: p.port, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
	return t
}

var (
	guestMAC   = []byte{2, 0, 0, 0, 0, 2}
	gatewayMAC = []byte{2, 0, 0, 0, 0, 1}
)

func ethernetHeader(kind tcpip.NetworkProtocolNumber) []byte {
	return binary.BigEndian.AppendUint16(slices.Concat(gatewayMAC, guestMAC), uint16(kind))
}

// at is a frame with other bytes at an offset.
func at(frame []byte, offset int, b ...byte) []byte {
	frame = bytes.Clone(frame)
	copy(frame[offset:], b)
	return frame
}

// targets collects where connections of a guest go, and lets none go there.
type targets struct {
	mu  sync.Mutex
	all []string
}

func (t *targets) reroute(to netip.AddrPort) netip.AddrPort {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, to.String())
	return netip.AddrPort{}
}

func (t *targets) list() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(slices.Values(t.all))
}

// rawNetwork is a network whose guest is the test itself.
func rawNetwork(t *testing.T) (*Network, *targets, *os.File) {
	t.Helper()
	return rawNetworkOf(t, with6(Config{Host: func(netip.Addr) netip.Addr { return elsewhere }}))
}

func rawNetworkOf(t *testing.T, c Config) (*Network, *targets, *os.File) {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	var seen targets
	n.reroute = seen.reroute
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	return n, &seen, guest
}

// only sends frames and then a packet that is let through: the only one.
func only(t *testing.T, frames ...[]byte) {
	t.Helper()
	onlyIn(t, with6(Config{Host: func(netip.Addr) netip.Addr { return elsewhere }}), frames...)
}

// onlyIn is only in a certain network.
func onlyIn(t *testing.T, c Config, frames ...[]byte) {
	t.Helper()
	n, seen, guest := rawNetworkOf(t, c)
	end := sent{proto: header.UDPProtocolNumber, dst: elsewhere.String(), port: 999, payload: []byte("end")}
	for _, f := range append(frames, end.bytes()) {
		if _, err := guest.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	want := elsewhere.String() + ":999"
	for range 6000 {
		if slices.Contains(seen.list(), want) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.Close()
	if got := seen.list(); !slices.Equal(got, []string{want}) {
		t.Errorf("went to %v, want only %s", got, want)
	}
}

// Packets of a guest may hold any address: its own stack would not send to
// 127.0.0.1, a hostile one does.
func TestDeniedFrames(t *testing.T) {
	var frames [][]byte
	for _, to := range []string{
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.1.1", "255.255.255.255",
		"10.0.2.255", "10.0.2.77", "10.0.2.15", "224.0.0.251", "240.0.0.1", "100.100.100.200", "168.63.129.16",
		"::1", "::", "::ffff:127.0.0.1", "::ffff:198.51.100.7", "::ffff:10.0.2.2", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001::1",
		"fe80::1", "fe80::ff:fe00:1", "fec0::1", "ff02::1", "ff02::fb", "ff0e::1", "fd00:ec2::254", "fd00:42::42", "fd20:ce::254",
		"fd66::77", "fd66::15", "fd66::",
	} {
		for _, proto := range []tcpip.TransportProtocolNumber{header.TCPProtocolNumber, header.UDPProtocolNumber} {
			frames = append(frames, sent{proto: proto, dst: to, port: 80, payload: []byte("x")}.bytes())
		}
	}
	only(t, frames...)
}

func TestForgedFrames(t *testing.T) {
	good := sent{proto: header.UDPProtocolNumber, dst: elsewhere.String(), port: 80, payload: []byte("x")}
	from := func(src string) []byte {
		p := good
		p.src = src
		return p.bytes()
	}
	v6 := func(src, dst string) []byte {
		p := good
		p.src, p.dst = src, dst
		return p.bytes()
	}
	whole := good.bytes()
	whole6 := v6("", elsewhere6.String())
	onlyIn(t, with(Config{}), whole6)
	only(t,
		v6("fd66::16", "2001:db8::7"), v6("fd66::2", "2001:db8::7"), v6("::", "2001:db8::7"), v6("fe80::ff:fe00:2", "2001:db8::7"), v6("::ffff:10.0.2.15", "2001:db8::7"),
		at(whole6, srcMAC, 2, 0, 0, 0, 0, 3), at(whole6, 0, 2, 0, 0, 0, 0, 9), at(whole6, 0, 0x33, 0x33, 0, 0, 0, 1), at(whole6, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		at(whole6, frameType, 8, 0), at(whole6, body, 0x45), at(whole6, body+4, 0xff, 0xff), whole6[:len(whole6)-1], whole6[:body+header.IPv6MinimumSize-1],
		from("10.0.2.16"), from("10.0.2.2"), from("127.0.0.1"), from("0.0.0.0"), from("198.51.100.1"), from("255.255.255.255"),
		v6("2001:db8::1", "2001:db8::2"), v6("fe80::2", "2001:db8::2"), v6("::ffff:10.0.2.15", "::ffff:198.51.100.7"), v6("::1", "::1"),
		at(whole, srcMAC, 2, 0, 0, 0, 0, 3),                                                 // from another device
		at(whole, 0, 2, 0, 0, 0, 0, 9),                                                      // to another device
		at(whole, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),                                    // to everybody
		at(whole, frameType, 0x86, 0xdd),                                                    // IPv4 that says to be IPv6
		at(whole, frameType, 0x81, 0x00),                                                    // of a VLAN
		at(whole, frameType, 0x00, 0x40),                                                    // of IEEE 802.3
		at(whole, body, 0x65), at(whole, body, 0x44), whole[:body+header.IPv4MinimumSize-1], // broken IPv4
		at(whole, body+2, 0xff, 0xff), // longer than the frame
	)
}

// A datagram in fragments counts once it is whole, wherever its parts are from.
func TestFragments(t *testing.T) {
	for _, f := range []struct{ to, own, another string }{
		{elsewhere.String(), "10.0.2.15", "10.0.2.16"}, {elsewhere6.String(), "fd66::15", "fd66::16"},
	} {
		testFragments(t, f.to, f.own, f.another)
	}
}

func testFragments(t *testing.T, to, own, another string) {
	t.Helper()
	whole := sent{proto: header.UDPProtocolNumber, src: own, dst: to, port: 1000, payload: bytes.Repeat([]byte("x"), 1000)}.bytes()
	whole = whole[len(whole)-1000-header.UDPMinimumSize:]
	part := func(src string, from, end int, more bool) []byte {
		return sent{proto: header.UDPProtocolNumber, src: src, dst: to, payload: whole[from:end], raw: true, offset: uint16(from), more: more}.bytes()
	}
	n, seen, guest := rawNetwork(t)
	for _, f := range [][]byte{
		part(another, 0, 400, true),
		part(own, 400, 800, true), part(own, 800, len(whole), false),
		part(another, 400, len(whole), false),
	} {
		guest.Write(f)
	}
	time.Sleep(100 * time.Millisecond)
	if got := seen.list(); len(got) != 0 {
		t.Errorf("a datagram without its beginning went to %v", got)
	}
	guest.Write(part(own, 0, 400, true))
	for range 6000 {
		if len(seen.list()) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.Close()
	want := netip.AddrPortFrom(netip.MustParseAddr(to), 1000).String()
	if got := slices.Compact(seen.list()); !slices.Equal(got, []string{want}) {
		t.Errorf("went to %v, want %s", got, want)
	}
}

// arpFrame is a request, or an answer.
func arpFrame(op byte, sender, target string) []byte {
	a := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, op}, guestMAC, netip.MustParseAddr(sender).AsSlice(), make([]byte, 6), netip.MustParseAddr(target).AsSlice())
	return slices.Concat(ethernetHeader(header.ARPProtocolNumber), a)
}

// The guest hears of the gateway only, and cannot be somebody else.
func TestARP(t *testing.T) {
	_, _, guest := rawNetwork(t)
	good := arpFrame(1, "10.0.2.15", "10.0.2.2")
	for _, f := range [][]byte{
		arpFrame(1, "10.0.2.77", "10.0.2.2"), arpFrame(1, "10.0.2.2", "10.0.2.2"), arpFrame(2, "10.0.2.2", "10.0.2.2"),
		arpFrame(1, "10.0.2.15", "10.0.2.77"), arpFrame(1, "10.0.2.15", "198.51.100.7"), arpFrame(1, "10.0.2.15", "10.0.2.15"),
		at(good, body+8, 2, 0, 0, 0, 0, 9), at(good, srcMAC, 2, 0, 0, 0, 0, 9), at(good, 0, 2, 0, 0, 0, 0, 9),
		good[:len(good)-1], at(good, body+1, 9), at(good, body+4, 7, 5), at(good, body+7, 9),
		good, // the last one gets the first answer
	} {
		guest.Write(f)
	}
	want := slices.Concat(guestMAC, gatewayMAC, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, gatewayMAC, gateway.AsSlice(), guestMAC, guestNet.Addr().AsSlice())
	for {
		got := receive(t, guest)
		if got[frameType] != 8 || got[frameType+1] != 6 {
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got  %x\nwant %x", got, want)
		}
		break
	}
	guest.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if k, err := guest.Read(make([]byte, 1500)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more frame: %d bytes, %v", k, err)
	}
}

func receive(t *testing.T, guest *os.File) []byte {
	t.Helper()
	buf := make([]byte, 70_000)
	guest.SetReadDeadline(time.Now().Add(time.Minute))
	k, err := guest.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:k]
}

// What a guest sends is bytes: none of it may end the network.
func TestBrokenFrames(t *testing.T) {
	_, _, guest := rawNetwork(t)
	frame := append(ethernetHeader(header.IPv4ProtocolNumber), bytes.Repeat([]byte{0x45}, 60)...)
	raw, err := guest.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for i := range frame { // os.File writes no empty one
		if cerr := raw.Control(func(fd uintptr) { _, err = unix.Write(int(fd), frame[:i]) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
	}
	for _, kind := range [][]byte{{8, 0}, {8, 6}, {0x86, 0xdd}, {0xff, 0xff}} {
		b := append(bytes.Clone(frame[:12]), kind...)
		for _, fill := range []byte{0, 0x45, 0x4f, 0x60, 0xff} {
			body := bytes.Repeat([]byte{fill}, 1400)
			copy(body[12:], guestNet.Addr().AsSlice())
			guest.Write(append(bytes.Clone(b), body...))
			copy(body[8:], guestNet6.Addr().AsSlice())
			for _, next := range []byte{6, 17, 58, 44} {
				copy(body[4:], []byte{0, 9, next})
				guest.Write(append(bytes.Clone(b), body...))
			}
		}
	}
	guest.Write(bytes.Repeat([]byte{0xff}, 65_000))
	s := guestStack(t, guest)
	c, err := dialFrom(t, s, netip.AddrPortFrom(gateway, 9))
	if err == nil {
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("after broken frames: %v, want refused", err)
	}
}

// Whatever comes over the link, nothing goes where a guest may not go.
func FuzzFrames(f *testing.F) {
	for _, p := range []sent{
		{proto: header.TCPProtocolNumber, dst: elsewhere.String(), port: 80},
		{proto: header.UDPProtocolNumber, dst: elsewhere.String(), port: 53, payload: []byte("x")},
		{proto: header.UDPProtocolNumber, dst: gateway.String(), port: 53, payload: []byte("question")},
		{proto: header.UDPProtocolNumber, dst: "169.254.169.254", port: 80, more: true},
		{proto: header.ICMPv4ProtocolNumber, dst: gateway.String(), raw: true, payload: []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}},
		{proto: header.ICMPv4ProtocolNumber, dst: elsewhere.String(), raw: true, payload: []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}},
		{proto: header.ICMPv4ProtocolNumber, dst: "169.254.169.254", raw: true, payload: []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}},
		{proto: header.TCPProtocolNumber, dst: elsewhere6.String(), port: 80},
		{proto: header.UDPProtocolNumber, dst: "fd00:ec2::254", port: 53, payload: []byte("x")},
		{proto: header.UDPProtocolNumber, dst: "::ffff:169.254.169.254", port: 53, payload: []byte("x")},
		{proto: header.UDPProtocolNumber, dst: gateway6.String(), port: 53, payload: []byte("question")},
		{proto: header.UDPProtocolNumber, dst: elsewhere6.String(), port: 53, payload: []byte("x"), more: true},
		{proto: header.ICMPv6ProtocolNumber, dst: elsewhere6.String(), raw: true, payload: []byte{128, 0, 0, 0, 0, 0, 0, 0}},
		{proto: header.ICMPv6ProtocolNumber, dst: "fe80::1", raw: true, payload: []byte{128, 0, 0, 0, 0, 0, 0, 0}},
		{proto: header.ICMPv6ProtocolNumber, dst: gateway6.String(), raw: true, payload: []byte{2, 0, 0, 0, 0, 0, 0, 0}},
	} {
		f.Add(p.bytes(), true)
	}
	f.Add(arpFrame(1, "10.0.2.15", "10.0.2.2"), false)
	f.Add(solicitation("fd66::15", "fd66::2"), true)
	f.Add(advertisement("fd66::15", 2), true)
	n, err := New(with6(Config{}))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(n.Close)
	n.reroute = func(to netip.AddrPort) netip.AddrPort {
		if forbidden(to.Addr()) || guestNet.Contains(to.Addr()) || guestNet6.Contains(to.Addr()) {
			panic("a guest reached " + to.String())
		}
		return netip.AddrPort{}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	host, guest := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	f.Cleanup(func() { host.Close(); guest.Close() })
	if err := n.Attach(host); err != nil {
		f.Fatal(err)
	}
	go func() {
		for buf := make([]byte, 70_000); ; {
			if _, err := guest.Read(buf); err != nil {
				return
			}
		}
	}()
	f.Fuzz(func(t *testing.T, frame []byte, mine bool) {
		six := len(frame) >= body+header.IPv6MinimumSize && frame[frameType] == 0x86
		switch {
		case mine && six:
			frame = at(frame, 0, slices.Concat(gatewayMAC, guestMAC)...)
			frame = at(frame, body+8, guestNet6.Addr().AsSlice()...)
			frame = rightSum(frame)
		case mine && len(frame) >= ipSource+4:
			frame = at(frame, 0, slices.Concat(gatewayMAC, guestMAC)...)
			frame = at(frame, ipSource, guestNet.Addr().AsSlice()...)
		}
		n.wire.deliver(frame)
	})
}
