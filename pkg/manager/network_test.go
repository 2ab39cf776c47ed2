package manager

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

func TestCheckNetwork(t *testing.T) {
	for name, h := range map[string]HostConfig{
		"no port":   {PortBindings: []PortBinding{{Port: "/tcp"}}},
		"port 0":    {PortBindings: []PortBinding{{Port: "0/tcp"}}},
		"protocol":  {PortBindings: []PortBinding{{Port: "80/sctp"}}},
		"address":   {PortBindings: []PortBinding{{Port: "80/tcp", HostIP: "example.org"}}},
		"injection": {PortBindings: []PortBinding{{Port: "80/tcp\n"}}},
	} {
		if err := checkNetwork(h); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ok := HostConfig{NetworkMode: NetworkUser, PortBindings: []PortBinding{{Port: "80/tcp"}, {Port: "53/udp", HostIP: "::1", HostPort: 53}}}
	if err := checkNetwork(ok); err != nil {
		t.Error(err)
	}
}

// An address of IPv4 in the form of IPv6 is one of IPv4: a socket of IPv6 would be
// another.
func TestPort(t *testing.T) {
	for in, want := range map[string]string{
		"": "0.0.0.0:80", "127.0.0.1": "127.0.0.1:80", "::ffff:0.0.0.0": "0.0.0.0:80", "::ffff:127.0.0.1": "127.0.0.1:80", "::": "[::]:80",
	} {
		p, err := port(PortBinding{Port: "80/tcp", HostIP: in, HostPort: 80})
		if err != nil || p.Host.String() != want || p.Any != (in == "") {
			t.Errorf("%q: %+v, %v", in, p, err)
		}
	}
}

func TestPublishAll(t *testing.T) {
	c := &state.Config{ExposedPorts: []string{"80/tcp", "443/tcp", "9/sctp"}, HostConfig: HostConfig{PortBindings: []PortBinding{{Port: "80/tcp", HostPort: 8080}}}}
	if got := portBindings(c); len(got) != 1 {
		t.Errorf("without publish-all: %v", got)
	}
	c.HostConfig.PublishAll = true
	if got, want := portBindings(c), []PortBinding{{Port: "80/tcp", HostPort: 8080}, {Port: "443/tcp"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Builders write what the Dockerfile says, in more than one form.
func TestExposedPorts(t *testing.T) {
	set := func(ports ...string) map[string]struct{} {
		out := map[string]struct{}{}
		for _, p := range ports {
			out[p] = struct{}{}
		}
		return out
	}
	got, err := exposedPorts(set("80", "80/tcp", "8000-8002/tcp", "53/UDP", "9/sctp"), []string{"80/tcp", "1/udp"})
	if want := []string{"1/udp", "53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp", "9/sctp"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := exposedPorts(set("0-65535", "0-65534", "0-65533", "0-65532", "0-65531"), nil); err == nil {
		t.Error("too many: no error")
	}
	for _, bad := range []string{"", "x", "80/icmp", "3-1", "70000", "80/tcp\n"} {
		if _, err := exposedPorts(set(bad), nil); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestHosts(t *testing.T) {
	user := network.User(nil, nil)
	plan := []network.NIC{{Name: NetworkUser, User: &user}}
	for _, c := range []struct {
		host, domain string
		want         []string
	}{
		{"box", "", []string{"box"}},
		{"box.example.org", "", []string{"box.example.org", "box"}},
		{"box", "example.org", []string{"box.example.org", "box"}},
		{"box.", "", []string{"box."}},
	} {
		got, err := hosts(&state.Config{Hostname: c.host, Domainname: c.domain}, plan)
		if want := []api.Host{{Addr: "10.0.2.15", Names: c.want}}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s, %s: %v, %v; want %v", c.host, c.domain, got, err, want)
		}
	}
	extra := &state.Config{Hostname: "box", HostConfig: HostConfig{ExtraHosts: []string{"six:2001:db8::1", "gw:host-gateway"}}}
	got, err := hosts(extra, plan)
	want := []api.Host{
		{Addr: "2001:db8::1", Names: []string{"six"}}, {Addr: "10.0.2.2", Names: []string{"gw"}}, {Addr: "10.0.2.15", Names: []string{"box"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if got, err := hosts(extra, nil); err != nil || !reflect.DeepEqual(got, want[:1]) {
		t.Errorf("of one that has left its networks: %v, %v", got, err)
	}
	extra.HostConfig.NetworkMode = NetworkNone
	if _, err := hosts(extra, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("host-gateway without a network: %v", err)
	}
}

func TestDNS(t *testing.T) {
	user := network.User(nil, nil)
	plan := []network.NIC{{Name: NetworkUser, User: &user}}
	place := network.Plan{Network: "n", Guest: netip.MustParsePrefix("10.66.0.2/24"), Gateway: netip.MustParseAddr("10.66.0.1")}
	named, unnamed := []network.NIC{{Name: "front", User: &place}}, []network.NIC{{Name: DriverBridge, User: &place}}
	chosen := func(server string) HostConfig { return HostConfig{DNS: []string{"192.0.2.1", server}} }
	both := func(server string) api.DNS {
		return api.DNS{Servers: []string{"192.0.2.1", server}, Search: []string{"example.org"}, Options: []string{"ndots:2"}}
	}
	host := network.Resolver{Search: []string{"example.org"}, Options: []string{"ndots:2"}}
	for name, c := range map[string]struct {
		h    HostConfig
		p    []network.NIC
		want api.DNS
	}{
		"the host's":     {HostConfig{}, plan, api.DNS{Servers: []string{"10.0.2.2"}, Search: host.Search, Options: host.Options}},
		"no network":     {HostConfig{}, nil, api.DNS{}},
		"the user's":     {HostConfig{DNS: []string{"192.0.2.1"}, DNSOptions: []string{"rotate"}}, plan, api.DNS{Servers: []string{"192.0.2.1"}, Search: host.Search, Options: []string{"rotate"}}},
		"asked by ours":  {chosen("192.0.2.2"), named, api.DNS{Servers: []string{"10.66.0.1"}, Search: host.Search, Options: host.Options}},
		"no names":       {chosen("192.0.2.2"), unnamed, both("192.0.2.2")},
		"its loopback":   {chosen("127.0.0.1"), named, both("127.0.0.1")},
		"a guest":        {chosen("10.66.0.9"), named, both("10.66.0.9")},
		"no search list": {HostConfig{DNSSearch: []string{"."}}, plan, api.DNS{Servers: []string{"10.0.2.2"}, Search: []string{}, Options: host.Options}},
	} {
		got := dns(c.h, c.p, host)
		if len(got.Search) == 0 {
			got.Search, c.want.Search = nil, nil
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
