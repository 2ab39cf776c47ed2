package usernet

import (
	"cmp"
	"net/netip"
	"testing"
)

func TestTarget(t *testing.T) {
	others := func(a netip.Addr) bool {
		return netip.MustParsePrefix("172.17.0.0/16").Contains(a) || netip.MustParsePrefix("fd17::/64").Contains(a)
	}
	host := func(gateway netip.Addr) netip.Addr {
		if gateway.Is6() {
			return netip.MustParseAddr("2001:db8::99")
		}
		return netip.MustParseAddr("192.0.2.1")
	}
	both := with6(Config{}).sides()
	for _, c := range []struct{ dst, want string }{
		{"198.51.100.1:443", "198.51.100.1:443"},
		{"192.168.1.1:80", "192.168.1.1:80"},
		{"10.0.2.2:80", "192.0.2.1:80"},
		{"[2001:db8::1]:80", "[2001:db8::1]:80"},
		{"[fd00::1]:80", "[fd00::1]:80"},
		{"[fd66::2]:80", "[2001:db8::99]:80"},
		{"[fd66::15]:80", ""},
		{"[fd66::3]:80", ""},
		{"[fd17::2]:80", ""},
		{"[::ffff:198.51.100.1]:80", ""}, // there is no such packet
		{"[::ffff:10.0.2.2]:80", ""},
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
		{"[fe80::1%1]:80", ""},
		{"[fd00:ec2::254]:80", ""},
		{"[fd00:42::42]:80", ""},
		{"[fd20:ce::254]:80", ""},
		{"[64:ff9b::127.0.0.1]:80", ""},
		{"[64:ff9b:1::1]:80", ""},
		{"[2002:7f00:1::]:80", ""},
		{"[2001::1]:80", ""},
		{"[fec0::1]:80", ""},
		{"[::127.0.0.1]:80", ""},
		{"[ff02::1]:80", ""},
		{"239.1.1.1:80", ""},
		{"255.255.255.255:80", ""},
	} {
		dst := netip.MustParseAddrPort(c.dst)
		for _, p := range []policy{
			{sides: both, host: host, others: others},
			{sides: both[:1], host: host, others: others},
			{sides: both, host: host, others: others, internal: true},
		} {
			want := c.want
			if p.internal || len(p.sides) == 1 && dst.Addr().Is6() {
				want = ""
			}
			if got, ok := p.target(dst); ok != (want != "") || ok && got.String() != want {
				t.Errorf("target(%s) = %s, %v; want %q with %+v", c.dst, got, ok, want, p)
			}
		}
	}
	for _, host := range []string{"", "127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		addr, _ := netip.ParseAddr(host)
		p := policy{sides: both, host: func(netip.Addr) netip.Addr { return addr }}
		for _, dst := range []string{"10.0.2.2:80", "[fd66::2]:80"} {
			if _, ok := p.target(netip.MustParseAddrPort(dst)); ok {
				t.Errorf("a gateway that stands for %q was reachable at %s", host, dst)
			}
		}
	}
}

func TestSource(t *testing.T) {
	both := with6(Config{}).sides()
	for _, c := range []struct{ client, want, want6 string }{
		{"192.0.2.9:5000", "192.0.2.9:5000", ""},
		{"[::ffff:192.0.2.9]:5000", "192.0.2.9:5000", ""},
		{"127.0.0.1:5000", "10.0.2.2:0", ""},
		{"[::ffff:127.0.0.1]:5000", "10.0.2.2:0", ""},
		{"10.0.2.15:5000", "10.0.2.2:0", ""},
		{"10.0.2.2:5000", "10.0.2.2:0", ""},
		{"[2001:db8::1]:5000", "10.0.2.2:0", "[2001:db8::1]:5000"},
		{"[fe80::1%lo]:5000", "10.0.2.2:0", "[fd66::2]:0"},
		{"[::1]:5000", "10.0.2.2:0", "[fd66::2]:0"},
		{"[fd66::9]:5000", "10.0.2.2:0", "[fd66::2]:0"},
	} {
		client := netip.MustParseAddrPort(c.client)
		if got := (policy{sides: both[:1]}).source(client); got.String() != c.want {
			t.Errorf("source(%s) = %s, want %s", c.client, got, c.want)
		}
		if got := (policy{sides: both}).source(client); got.String() != cmp.Or(c.want6, c.want) {
			t.Errorf("with IPv6, source(%s) = %s, want %s", c.client, got, cmp.Or(c.want6, c.want))
		}
	}
}
