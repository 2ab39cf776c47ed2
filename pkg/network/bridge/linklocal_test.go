package bridge

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLinkLocalFrames are those that a bridge takes for itself (IEEE 802.1D, 7.12.6):
// it learns where an address is from them too, without asking chain guard.
func TestLinkLocalFrames(t *testing.T) {
	l := newLab(t)
	n := testNetwork(1)
	bad, good, other := l.guest(testEndpoint(n, 2)), l.guest(testEndpoint(n, 3)), l.guest(testEndpoint(n, 4))
	to, stolen, from := good.wire("eth0"), bad.wire("eth0"), other.wire("eth0")
	to.send(ether(mac4, mac3, unix.ETH_P_IP, ip4("10.89.1.3", "10.89.1.4", udpHeader(9, 9, "here I am"))))
	for last := range byte(16) {
		stolen.send(ether(fmt.Sprintf("01:80:c2:00:00:%02x", last), mac3, 0x88cc, []byte("not guest 3")))
		token := fmt.Sprintf("for guest 3: %02x", last)
		from.send(ether(mac3, mac4, unix.ETH_P_IP, ip4("10.89.1.4", "10.89.1.3", udpHeader(9, 9, token))))
		if _, found := to.until(token); !found {
			t.Errorf("01:80:c2:00:00:%02x: a guest gets what is for another one", last)
		}
	}
	from.send(ether(mac2, mac4, unix.ETH_P_IP, ip4("10.89.1.4", "10.89.1.2", udpHeader(9, 9, "the last"))))
	if frames, found := stolen.until("the last"); !found || bytes.Contains(bytes.Join(frames, nil), []byte("for guest 3")) {
		t.Errorf("guest 2 got its own: %v, and of guest 3: %q", found, frames)
	}
}

// TestLinkLocalPackets: what is in such frames comes to the host by the bridge and the
// chains, or not at all. By the port itself it would come by neither.
func TestLinkLocalPackets(t *testing.T) {
	l := newLab(t)
	n := testNetwork(1)
	n.Internal = true
	bad := l.guest(testEndpoint(n, 2))
	var socket net.PacketConn
	l.host.do(func() (err error) {
		socket, err = net.ListenPacket("udp4", hostLAN+":8085")
		return err
	})
	defer socket.Close()
	from, buf := bad.wire("eth0"), make([]byte, 100)
	for _, flush := range []string{"list ruleset", "flush ruleset"} {
		l.host.run("nft " + flush)
		for last := range byte(16) {
			for _, src := range []string{"10.89.1.2", "198.51.100.9", client} {
				to := fmt.Sprintf("01:80:c2:00:00:%02x", last)
				from.send(ether(to, mac2, unix.ETH_P_IP, ip4(src, hostLAN, udpHeader(9, 8085, to+" from "+src))))
			}
		}
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		for {
			k, _, err := socket.ReadFrom(buf)
			if err != nil {
				break
			}
			t.Errorf("%s: the host got a packet of an internal network to %s", flush, buf[:k])
		}
	}
}

// TestDeletedBridge: a port without its bridge is a device of the host as any other.
func TestDeletedBridge(t *testing.T) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	g := l.guest(e)
	l.host.run("ip link del " + e.Network.Device())
	from, up := g.wire("eth0"), l.internet.wire("eth0")
	from.send(ether(l.host.macOf(e.Device), mac2, unix.ETH_P_IP, ip4("10.89.1.2", "198.51.100.9", udpHeader(9, 9, "outward"))))
	if _, found := up.came("outward"); found {
		t.Error("a guest gets out past the chains")
	}
	l.restore(e)
	check(t, reach{"restored", g, "198.51.100.9:80", hostUp})
}
