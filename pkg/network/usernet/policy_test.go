package usernet

import (
	"net/netip"
	"testing"
)

func TestTarget(t *testing.T) {
	p := policy{gateway: gateway, host: func() netip.Addr { return netip.MustParseAddr("192.0.2.1") }, guest: guestNet, others: netip.MustParsePrefix("172.17.0.0/16").Contains}
	for _, c := range []struct{ dst, want string }{
		{"198.51.100.1:443", "198.51.100.1:443"},
		{"192.168.1.1:80", "192.168.1.1:80"},
		{"10.0.2.2:80", "192.0.2.1:80"},
		{"[2001:db8::1]:80", ""}, // no IPv6 with this gateway
		{"[::ffff:198.51.100.1]:80", "198.51.100.1:80"},
		{"10.0.2.3:80", ""},
		{"172.17.0.2:80", ""},
		{"[::ffff:172.17.0.2]:80", ""},
		{"172.18.0.2:80", "172.18.0.2:80"},
		{"127.0.0.1:80", ""},
		{"127.1.2.3:80", ""},
		{"0.0.0.0:80", ""},
		{"0.1.2.3:80", ""},
		{"169.254.169.254:80", ""},
		{"[::ffff:169.254.169.254]:80", ""},
		{"[::ffff:127.0.0.1]:80", ""},
		{"[::1]:80", ""},
		{"[::]:80", ""},
		{"[fe80::1]:80", ""},
		{"[fd00:ec2::254]:80", ""},
		{"[ff02::1]:80", ""},
		{"239.1.1.1:80", ""},
		{"255.255.255.255:80", ""},
	} {
		got, ok := p.target(netip.MustParseAddrPort(c.dst))
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("target(%s) = %s, %v; want %q", c.dst, got, ok, c.want)
		}
	}
	for _, host := range []netip.Addr{{}, netip.MustParseAddr("127.0.0.1")} {
		p.host = func() netip.Addr { return host }
		if _, ok := p.target(netip.MustParseAddrPort("10.0.2.2:80")); ok {
			t.Errorf("a gateway that stands for %v was reachable", host)
		}
	}
}

func TestSource(t *testing.T) {
	p := policy{gateway: gateway, guest: guestNet}
	for _, c := range []struct{ client, want string }{
		{"192.0.2.9:5000", "192.0.2.9:5000"},
		{"[::ffff:192.0.2.9]:5000", "192.0.2.9:5000"},
		{"127.0.0.1:5000", "10.0.2.2:0"},
		{"10.0.2.15:5000", "10.0.2.2:0"},
		{"10.0.2.2:5000", "10.0.2.2:0"},
		{"[2001:db8::1]:5000", "10.0.2.2:0"},
		{"[fe80::1%lo]:5000", "10.0.2.2:0"},
	} {
		if got := p.source(netip.MustParseAddrPort(c.client)); got.String() != c.want {
			t.Errorf("source(%s) = %s, want %s", c.client, got, c.want)
		}
	}
}
