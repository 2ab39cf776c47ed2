package usernet

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a guest sends is bytes: none of it may end the network.
func TestBrokenFrames(t *testing.T) {
	n, err := New(Config{Guest: guestNet, Gateway: gateway, GatewayMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	host, guest := link(t)
	if err := n.Attach(host); err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, bytes.Repeat([]byte{0x45}, 60)...)
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
		b := append(append([]byte{}, frame[:12]...), kind...)
		for _, fill := range []byte{0, 0x45, 0x4f, 0x60, 0xff} {
			guest.Write(append(bytes.Clone(b), bytes.Repeat([]byte{fill}, 1400)...))
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
