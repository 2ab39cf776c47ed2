package network

import (
	"net"
	"net/netip"
	"testing"
)

// TestListenAll: one port for all, also at addresses that the host does not have.
func TestListenAll(t *testing.T) {
	at := []netip.Addr{netip.MustParseAddr("198.18.77.1"), netip.MustParseAddr("fd00:77::1"), netip.MustParseAddr("127.77.0.9")}
	all, port, err := listenAll(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(at) {
		t.Fatalf("%d of %d", len(all), len(at))
	}
	for i, s := range all {
		want := netip.AddrPortFrom(at[i], port).String()
		for _, got := range []net.Addr{s.udp.LocalAddr(), s.tcp.Addr()} {
			if got.String() != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		s.close()
	}
	again, err := listenAt(t.Context(), netip.AddrPortFrom(at[2], port))
	if err != nil {
		t.Fatalf("the port is not free again: %v", err)
	}
	again.close()
	if _, _, err := listenAll(t.Context(), []netip.Addr{netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::1")}); err == nil {
		t.Error("a port at the addresses of groups")
	}
}
