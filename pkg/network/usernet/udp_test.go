package usernet

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func TestUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go echoDatagrams(pc)
	_, guest := network(t, Config{})
	for _, addr := range families {
		to := full(netip.AddrPortFrom(addr, uint16(pc.LocalAddr().(*net.UDPAddr).Port)))
		c, err := gonet.DialUDP(guest, nil, &to, protocol(addr))
		if err != nil {
			t.Fatal(err)
		}
		datagram(t, c, "ping")
		datagram(t, c, string(bytes.Repeat([]byte("x"), 9000))) // in fragments
	}
}

// Where the host has no way of IPv6, the guest hears so at once.
func TestNoRoute(t *testing.T) {
	n, err := New(with6(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	n.reroute = func(netip.AddrPort) netip.AddrPort { return netip.MustParseAddrPort("[fe80::1]:9") } // on no link
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	to := sent{proto: header.UDPProtocolNumber, dst: elsewhere6.String(), port: 9, payload: []byte("x")}
	if from, m := icmpTo(t, guest, to.bytes()); from != elsewhere6 || m[0] != byte(header.ICMPv6DstUnreachable) || m[1] != byte(header.ICMPv6PortUnreachable) {
		t.Errorf("UDP: type %d, code %d from %s", m[0], m[1], from)
	}
	if c, err := dialFrom(t, guestStack(t, guest), netip.AddrPortFrom(elsewhere6, 9)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("TCP: %v, %v, want refused", c, err)
	}
}
