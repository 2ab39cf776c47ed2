package usernet

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

func TestUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go echoDatagrams(pc)
	_, guest := network(t, Config{})
	to := full(netip.AddrPortFrom(elsewhere, uint16(pc.LocalAddr().(*net.UDPAddr).Port)))
	c, err := gonet.DialUDP(guest, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	datagram(t, c, "ping")
	datagram(t, c, string(bytes.Repeat([]byte("x"), 9000))) // in fragments
}
