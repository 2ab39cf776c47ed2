package bridge

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a socket for frames of a device.
type wire struct {
	t  *testing.T
	fd int
}

func (s *space) wire(device string) *wire {
	s.t.Helper()
	w := &wire{t: s.t}
	s.do(func() (err error) {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index})
	})
	s.t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

func (w *wire) send(frame []byte) {
	w.t.Helper()
	if _, err := unix.Write(w.fd, frame); err != nil {
		w.t.Fatal(err)
	}
}

// until are the frames that came before one that contains last.
func (w *wire) until(last string) (frames [][]byte, found bool) {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		more, found := w.came(last)
		frames = append(frames, more...)
		if found {
			return frames, true
		}
	}
	return frames, false
}

// came are the frames that came before one that contains last, or before no more
// came.
func (w *wire) came(last string) (frames [][]byte, found bool) {
	for end := time.Now().Add(20 * patience); time.Now().Before(end); {
		buf := make([]byte, 2000)
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil {
			return frames, false
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.Contains(buf[:n], []byte(last)) {
			return frames, true
		}
		frames = append(frames, buf[:n])
	}
	return frames, false
}

func (s *space) macOf(device string) (mac string) {
	s.t.Helper()
	s.do(func() error {
		dev, err := net.InterfaceByName(device)
		if err == nil {
			mac = dev.HardwareAddr.String()
		}
		return err
	})
	return mac
}

func mustMAC(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func ether(dst, src string, kind uint16, payload []byte) []byte {
	f := append(append([]byte{}, mustMAC(dst)...), mustMAC(src)...)
	return append(binary.BigEndian.AppendUint16(f, kind), payload...)
}

func arpPacket(op uint16, mac, ip, target string) []byte {
	p := []byte{0, 1, 8, 0, 6, 4, byte(op >> 8), byte(op)}
	p = append(append(p, mustMAC(mac)...), netip.MustParseAddr(ip).AsSlice()...)
	p = append(p, make([]byte, 6)...)
	return append(p, netip.MustParseAddr(target).AsSlice()...)
}

func udpHeader(from, to uint16, payload string) []byte {
	p := binary.BigEndian.AppendUint16(nil, from)
	p = binary.BigEndian.AppendUint16(p, to)
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(payload)))
	return append(append(p, 0, 0), payload...)
}

func ip4(src, dst string, payload []byte) []byte { return ip4Options(src, dst, nil, payload) }

// ip4Options is ip4 with options, of whole words.
func ip4Options(src, dst string, options, payload []byte) []byte {
	p := []byte{0x45 + byte(len(options)/4), 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	p = append(append(p, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
	p = append(p, options...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(payload)))
	var sum uint32
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return append(p, payload...)
}

func ip6(src, dst string, next byte, payload []byte) []byte {
	p := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	p = append(append(p, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
	return append(p, payload...)
}

// discovery is a message of neighbor discovery about a target.
func discovery(kind byte, target, token string) []byte {
	p := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr(target).AsSlice()...)
	return append(p, token...)
}

// spoof is a frame of guest 10.89.1.2, with a token in it, and whether guest
// 10.89.1.3 may get it.
type spoof struct {
	name  string
	frame func(token string) []byte
	pass  bool
}

const (
	mac2, mac3 = "02:42:0a:59:01:02", "02:42:0a:59:01:03"
	mac4, macX = "02:42:0a:59:01:04", "02:42:0a:59:01:99"
	everybody  = "ff:ff:ff:ff:ff:ff"
	ll2, ll3   = "fe80::42:aff:fe59:102", "fe80::42:aff:fe59:103"
)

func spoofs() []spoof {
	v4 := func(mac, src string, port uint16) func(string) []byte {
		return func(token string) []byte {
			return ether(mac3, mac, unix.ETH_P_IP, ip4(src, "10.89.1.3", udpHeader(port, 9, token)))
		}
	}
	v6 := func(mac, src string, port uint16) func(string) []byte {
		return func(token string) []byte {
			return ether(mac3, mac, unix.ETH_P_IPV6, ip6(src, "fd00:89:1::3", unix.IPPROTO_UDP, udpHeader(port, 9, token)))
		}
	}
	arp := func(sender, mac, ip string) func(string) []byte {
		return func(token string) []byte {
			return append(ether(everybody, sender, unix.ETH_P_ARP, arpPacket(2, mac, ip, "10.89.1.3")), token...)
		}
	}
	nd := func(src string, kind byte, target string) func(string) []byte {
		return func(token string) []byte {
			return ether(mac3, mac2, unix.ETH_P_IPV6, ip6(src, "ff02::1", unix.IPPROTO_ICMPV6, discovery(kind, target, token)))
		}
	}
	return []spoof{
		{"its own", v4(mac2, "10.89.1.2", 1000), true},
		{"another MAC", v4(macX, "10.89.1.2", 1000), false},
		{"another guest's address", v4(mac2, "10.89.1.3", 1000), false},
		{"the gateway's address", v4(mac2, "10.89.1.1", 1000), false},
		{"an address of elsewhere", v4(mac2, "198.51.100.9", 1000), false},
		{"DHCP server", v4(mac2, "10.89.1.2", 67), false},
		{"its own, IPv6", v6(mac2, "fd00:89:1::2", 1000), true},
		{"link-local", v6(mac2, ll2, 1000), true},
		{"another's link-local", v6(mac2, ll3, 1000), false},
		{"another's address, IPv6", v6(mac2, "fd00:89:1::3", 1000), false},
		{"another MAC, IPv6", v6(macX, "fd00:89:1::2", 1000), false},
		{"DHCPv6 server", v6(mac2, ll2, 547), false},
		{"ARP", arp(mac2, mac2, "10.89.1.2"), true},
		{"ARP for the gateway", arp(mac2, mac2, "10.89.1.1"), false},
		{"ARP for another guest", arp(mac2, mac2, "10.89.1.4"), false},
		{"ARP for itself with another MAC", arp(mac2, macX, "10.89.1.2"), false},
		{"ARP of another MAC", arp(macX, mac2, "10.89.1.2"), false},
		{"ARP of another form", func(token string) []byte {
			f := arp(mac2, mac2, "10.89.1.2")(token)
			f[18] = 8
			return f
		}, false},
		{"neighbor advertisement", nd("fd00:89:1::2", neighborAdvertisement, "fd00:89:1::2"), true},
		{"neighbor advertisement for the gateway", nd("fd00:89:1::2", neighborAdvertisement, "fd00:89:1::1"), false},
		{"neighbor advertisement for a link-local", nd(ll2, neighborAdvertisement, ll3), false},
		{"neighbor solicitation", nd("fd00:89:1::2", neighborSolicitation, "fd00:89:1::3"), true},
		{"duplicate address detection", nd("::", neighborSolicitation, "fd00:89:1::2"), true},
		{"duplicate address detection of another's", nd("::", neighborSolicitation, "fd00:89:1::3"), false},
		{"router advertisement", nd(ll2, routerAdvertisement, "::"), false},
		{"router advertisement without an address", nd("::", routerAdvertisement, "::"), false},
		{"redirect", nd(ll2, redirectMessage, "fd00:89:1::3"), false},
		{"router advertisement behind options", func(token string) []byte {
			options := append([]byte{unix.IPPROTO_ICMPV6, 0, 1, 4, 0, 0, 0, 0}, discovery(routerAdvertisement, "::", token)...)
			return ether(mac3, mac2, unix.ETH_P_IPV6, ip6(ll2, "ff02::1", 0, options))
		}, false},
		{"VLAN", func(token string) []byte {
			inner := v4(mac2, "10.89.1.2", 1000)(token)
			return append(append(append([]byte{}, inner[:12]...), 0x81, 0, 0, 5), inner[12:]...)
		}, false},
		{"another protocol", func(token string) []byte { return ether(mac3, mac2, 0x88b5, []byte(token)) }, false},
	}
}

// TestSpoofs sends what a guest that is not to be trusted may send.
func TestSpoofs(t *testing.T) {
	l := newLab(t)
	n := testNetwork(1)
	bad, good := l.guest(testEndpoint(n, 2)), l.guest(testEndpoint(n, 3))
	from, to := bad.wire("eth0"), good.wire("eth0")
	for i, s := range spoofs() {
		from.send(s.frame(fmt.Sprintf("token-%03d", i)))
	}
	legal := spoofs()[0].frame
	from.send(legal("the last"))
	frames, found := to.until("the last")
	if !found {
		t.Fatal("what is legal does not come")
	}
	got := bytes.Join(frames, nil)
	for i, s := range spoofs() {
		if passed := bytes.Contains(got, fmt.Appendf(nil, "token-%03d", i)); passed != s.pass {
			t.Errorf("%s: passed %v, want %v", s.name, passed, s.pass)
		}
	}
}

// TestUnknownPort is what somebody else plugged into a bridge of ours.
func TestUnknownPort(t *testing.T) {
	for name, filtered := range map[string]bool{"bridge": false, "br_netfilter": true} {
		t.Run(name, func(t *testing.T) { testUnknownPort(t, filtered) })
	}
}

func testUnknownPort(t *testing.T, filtered bool) {
	l := newLab(t)
	l.bridgeFilter(filtered)
	n := testNetwork(1)
	e := testEndpoint(n, 2)
	known, stray := l.guest(e), newSpace(t)
	cable(t, link{l.host, "stray0", "", nil}, link{stray, "eth0", "", nil})
	l.host.run("ip link set stray0 master " + n.Device())
	to, up, from := known.wire("eth0"), l.host.wire("up0"), stray.wire("eth0")
	gateway := l.h.mac(n.Device()).String()
	from.send(ether(mac2, macX, unix.ETH_P_IP, ip4("10.89.1.9", "10.89.1.2", udpHeader(9, 9, "stray"))))
	from.send(ether(gateway, macX, unix.ETH_P_IP, ip4("10.89.1.9", "198.51.100.9", udpHeader(9, 9, "stray"))))
	from.send(ether(gateway, macX, unix.ETH_P_IP, ip4("10.89.1.2", "198.51.100.9", udpHeader(9, 9, "stray"))))
	for name, w := range map[string]*wire{"guest": to, "uplink": up} {
		if _, found := w.came("stray"); found {
			t.Errorf("a frame of an unknown port came to the %s", name)
		}
	}
	check(t, reach{"", known, "198.51.100.9:80", hostUp})
}

// TestLoopback is that what listens on the host's loopback is not reached from a
// link, though somebody allowed it (route_localnet).
func TestLoopback(t *testing.T) {
	l := newLab(t)
	for _, dev := range []string{"all", "lan0"} {
		l.host.sysctl("ipv4/conf/"+dev+"/route_localnet", "1")
		l.host.sysctl("ipv4/conf/"+dev+"/rp_filter", "0")
	}
	var socket net.PacketConn
	l.host.do(func() (err error) {
		socket, err = net.ListenPacket("udp", "127.0.0.1:8085")
		return err
	})
	defer socket.Close()
	came := func(within time.Duration) bool {
		_ = socket.SetReadDeadline(time.Now().Add(within))
		_, _, err := socket.ReadFrom(make([]byte, 100))
		return err == nil
	}
	from := l.lan.wire("eth0")
	lan := l.host.macOf("lan0")
	packet := ether(lan, macX, unix.ETH_P_IP, ip4(client, "127.0.0.1", udpHeader(9, 8085, "loopback")))
	if from.send(packet); !came(limit) {
		t.Fatal("not even without us: this test could not fail")
	}
	e := testEndpoint(testNetwork(1), 2)
	e.Forwards = []Forward{{"udp", netip.MustParseAddrPort("127.0.0.1:8085"), 80}, {"udp", netip.MustParseAddrPort("0.0.0.0:8086"), 80}}
	g := l.guest(e)
	if from.send(packet); came(patience) {
		t.Error("a port that is published on loopback is reached from the LAN")
	}
	inside := g.wire("eth0")
	inside.send(ether(l.h.mac(e.Network.Device()).String(), mac2, unix.ETH_P_IP, ip4("10.89.1.2", "127.0.0.1", udpHeader(9, 8085, "loopback"))))
	if came(patience) {
		t.Error("the host's loopback is reached from a guest")
	}
	from.send(ether(lan, macX, unix.ETH_P_IP, ip4(client, "127.0.0.1", udpHeader(9, 8086, "loopback"))))
	if _, found := inside.came("loopback"); found {
		t.Error("a port that is published on all addresses is reached by the loopback address from the LAN")
	}
}
