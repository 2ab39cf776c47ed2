package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestUserNetwork(t *testing.T) {
	for _, c := range []struct {
		taken []string
		want  string
	}{
		{nil, "10.0.2.15/24"},
		{[]string{"127.0.0.1/8", "192.168.1.5/24"}, "10.0.2.15/24"},
		{[]string{"10.0.2.15/24"}, "192.168.127.15/24"},
		{[]string{"10.9.9.9/8", "192.168.127.1/24"}, "172.31.254.15/24"},
		{[]string{"10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"}, "10.0.2.15/24"}, // none is free
	} {
		var taken []netip.Prefix
		for _, s := range c.taken {
			taken = append(taken, netip.MustParsePrefix(s))
		}
		p := User(taken, nil)
		if p.Guest.String() != c.want || !p.Guest.Contains(p.Gateway) || p.Gateway == p.Guest.Addr() || p.MAC == p.GatewayMAC {
			t.Errorf("host in %v: %+v, want %s", c.taken, p, c.want)
		}
	}
}

func TestPlanTravels(t *testing.T) {
	p := User(nil, []Port{{Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:8080"), HostEnd: 8090, Guest: 80}})
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var got Plan
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, want %+v", got, p)
	}
}

func TestResolvers(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", []string{"127.0.0.1:53"}},
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1 # second\n", []string{"192.0.2.1:53", "[2001:db8::1]:53"}},
		{"; nameserver 192.0.2.1\nnameserver\nnameserver x\nsearch example.org", []string{"127.0.0.1:53"}},
		{"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4", []string{"192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"}},
	} {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range resolvers(path) {
			got = append(got, r.String())
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, want %v", c.text, got, c.want)
		}
	}
}

func TestForwarders(t *testing.T) {
	got := upstreams([]netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")})
	if want := "[192.0.2.9:53 [2001:db8::9]:53]"; fmt.Sprint(got) != want {
		t.Errorf("%v are asked, want %s", got, want)
	}
}
