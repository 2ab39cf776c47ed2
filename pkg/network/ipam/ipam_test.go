package ipam

import (
	"errors"
	"net/netip"
	"testing"
)

func prefixes(words ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, w := range words {
		out = append(out, netip.MustParsePrefix(w))
	}
	return out
}

func TestSubnet(t *testing.T) {
	for _, c := range []struct {
		taken []netip.Prefix
		want  string
	}{
		{nil, "172.17.0.0/16"},
		{prefixes("172.17.4.1/24"), "172.18.0.0/16"},
		{prefixes("172.16.0.0/12"), "192.168.0.0/20"},
		{prefixes("172.16.0.0/12", "192.168.1.7/24", "192.168.16.0/20"), "192.168.32.0/20"},
		{prefixes("172.16.0.0/13", "172.24.0.0/16"), "172.25.0.0/16"},
		{prefixes("10.0.0.0/8", "fd00::/8"), "172.17.0.0/16"},
	} {
		if got, err := Subnet(c.taken); err != nil || got.String() != c.want {
			t.Errorf("beside %v: %v, %v; want %s", c.taken, got, err, c.want)
		}
	}
	if got, err := Subnet(prefixes("0.0.0.0/0")); !errors.Is(err, ErrNoSubnet) {
		t.Errorf("beside everything: %v, %v", got, err)
	}
}

// TestSubnetsRunOut takes them all, one after the other.
func TestSubnetsRunOut(t *testing.T) {
	var taken []netip.Prefix
	for {
		s, err := Subnet(taken)
		if err != nil {
			break
		}
		if Overlaps(s, taken) || s != s.Masked() || !s.Addr().IsPrivate() {
			t.Fatalf("%v beside %v", s, taken)
		}
		taken = append(taken, s)
	}
	if len(taken) != 15+16 {
		t.Errorf("%d subnets: %v", len(taken), taken)
	}
}

func TestSubnet6(t *testing.T) {
	s := Subnet6(nil)
	if s.Bits() != 64 || s != s.Masked() || !s.Addr().IsPrivate() || Overlaps(Subnet6(nil), []netip.Prefix{s}) {
		t.Errorf("%v", s)
	}
}

func TestFree(t *testing.T) {
	for _, c := range []struct {
		subnet, within string
		taken          string
		want           string // "" is ErrFull
	}{
		{subnet: "10.0.0.0/24", want: "10.0.0.1"},
		{subnet: "10.0.0.0/24", taken: "10.0.0.1", want: "10.0.0.2"},
		{subnet: "10.0.0.0/24", within: "10.0.0.128/25", want: "10.0.0.128"},
		{subnet: "10.0.0.0/24", within: "10.0.0.0/30", taken: "10.0.0.1", want: "10.0.0.2"},
		{subnet: "10.0.0.0/30", taken: "10.0.0.1", want: "10.0.0.2"},
		{subnet: "10.0.0.4/31", want: ""}, // its own address and the broadcast address
		{subnet: "10.0.0.0/24", within: "10.0.0.255/32", want: ""},
		{subnet: "10.0.0.0/24", within: "10.0.0.7/32", taken: "10.0.0.7", want: ""},
		{subnet: "255.255.255.252/30", taken: "255.255.255.253", want: "255.255.255.254"},
		{subnet: "fd00::/64", taken: "fd00::1", want: "fd00::2"},
		{subnet: "fd00::/64", within: "fd00::ff00/120", want: "fd00::ff00"},
	} {
		var within netip.Prefix
		if c.within != "" {
			within = netip.MustParsePrefix(c.within)
		}
		got, err := Free(netip.MustParsePrefix(c.subnet), within, func(a netip.Addr) bool { return a.String() == c.taken })
		if c.want == "" {
			if !errors.Is(err, ErrFull) {
				t.Errorf("%+v: %v, %v", c, got, err)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	all := func(netip.Addr) bool { return true }
	if got, err := Free(netip.MustParsePrefix("255.255.255.0/24"), netip.Prefix{}, all); !errors.Is(err, ErrFull) {
		t.Errorf("the end of all addresses: %v, %v", got, err)
	}
}

func TestMAC(t *testing.T) {
	if got := MAC(netip.MustParseAddr("172.17.0.2")); got != "02:42:ac:11:00:02" {
		t.Error(got)
	}
}
