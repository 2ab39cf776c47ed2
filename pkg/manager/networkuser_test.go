package manager

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

func TestDriverUser(t *testing.T) {
	for name, c := range map[string]struct {
		o    NetworkOptions
		want string // the error
	}{
		"user":    {NetworkOptions{Driver: DriverUser}, ""},
		"bridge":  {NetworkOptions{Driver: DriverBridge}, ""},
		"unknown": {NetworkOptions{Driver: "macvlan"}, `network driver "macvlan" is not supported: only bridge and user`},
		"IPv6":    {NetworkOptions{Driver: DriverUser, IPv6: true}, ""},
		"not IPv6": {
			NetworkOptions{Driver: DriverUser, Pools: []NetworkPool{{Subnet: netip.MustParsePrefix("fd66::/64")}}},
			"invalid network config: the IPv6 subnet fd66::/64 needs --ipv6",
		},
	} {
		r, err := newNetwork(c.o, &state.Networks{}, nil)
		if err != nil && err.Error() != c.want || err == nil && (c.want != "" || r.Driver != c.o.Driver || r.Subnet6.IsValid() != c.o.IPv6 || r.Gateway6.IsValid() != c.o.IPv6) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	r, err := newNetwork(NetworkOptions{}, &state.Networks{}, nil)
	if err != nil || r.Driver != DefaultDriver() {
		t.Errorf("by default: %+v, %v", r, err)
	}
}

// TestDeniedSubnets are those in which no container of a bridge network could start.
func TestDeniedSubnets(t *testing.T) {
	for subnet, why := range map[string]string{
		"100.64.0.0/10": "subnet 100.64.0.0/10: overlaps 100.100.100.200/32, which no guest reaches",
		"2002:1::/64":   "subnet 2002:1::/64: overlaps 2002::/16, which no guest reaches",
	} {
		p := netip.MustParsePrefix(subnet)
		o := NetworkOptions{Driver: DriverBridge, IPv6: p.Addr().Is6(), Pools: []NetworkPool{{Subnet: p}}}
		if _, err := newNetwork(o, &state.Networks{}, nil); err == nil || err.Error() != "invalid network config: "+why {
			t.Errorf("%s: %v", subnet, err)
		}
	}
}

// A container in networks of driver user has a device for each: the first with a
// way out has the default route, the ports, and knows the names of all.
func TestUserNetworks(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	back, front := networkNamed("back", "10.66.0.0/24"), networkNamed("front", "10.67.0.0/24")
	back.Internal, back.Driver, front.Driver = true, DriverUser, DriverUser
	n := &state.Networks{Networks: []state.NetworkRecord{back, front}}
	c := member(state.Attachment{Network: back.ID, Name: "back"}, state.Attachment{Network: front.ID, Name: "front"})
	members, err := take(n, c)
	if err != nil {
		t.Fatal(err)
	}
	plan := m.planNICs(c, members, nil, 1500)
	if err := addPorts(plan, []PortBinding{{Port: "80/tcp"}}); err != nil {
		t.Fatal(err)
	}
	inner, outer := plan[0].User, plan[1].User
	if inner == nil || outer == nil {
		t.Fatalf("%+v", plan)
	}
	if !inner.Internal || outer.Internal || len(inner.Ports) != 0 || len(outer.Ports) != 1 || !inner.Upstream || !outer.Upstream {
		t.Errorf("inner %+v, outer %+v", inner, outer)
	}
	if outer.Network != members[1].network.ID || outer.Guest.String() != "10.67.0.2/24" || outer.Gateway.String() != "10.67.0.1" ||
		outer.MAC != "02:42:0a:43:00:02" || outer.GatewayMAC != "02:42:0a:43:00:01" || outer.MTU != 65520 {
		t.Errorf("%+v", outer)
	}
	c.HostConfig.DNS = []string{"192.0.2.1"}
	for _, n := range m.planNICs(c, members, nil, 1500) {
		if got := fmt.Sprint(n.User.Forwarders); got != "[192.0.2.1]" {
			t.Errorf("%s asks %s", n.Name, got)
		}
	}
	c.HostConfig.ExtraHosts = []string{"host:host-gateway"} // not the one that lets nobody through
	if lines, err := hosts(c, plan); err != nil || lines[0].Addr != "10.67.0.1" || network.HostGateway(plan[:1]).String() != "10.66.0.1" {
		t.Errorf("%+v, %v", lines, err)
	}
	devices, guest := nics(plan)
	if devices[0].Device != "" || guest[0].Gateway != "" || guest[1].Gateway != "10.67.0.1" {
		t.Errorf("%+v, %+v", devices, guest)
	}
	alone := m.planNICs(&state.Config{ID: c.ID, Networks: c.Networks[:1]}, members[:1], nil, 1500)
	if alone[0].User.Upstream {
		t.Error("a container without a way out asks for names outside")
	}
}

// In a network of driver user with IPv6 a container has an address of it, which its
// device and its lines of hosts have too, and the default route.
func TestUserNetworkIPv6(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	pools := []NetworkPool{{Subnet: netip.MustParsePrefix("10.66.0.0/24")}, {Subnet: netip.MustParsePrefix("fd66::/64")}}
	front, err := newNetwork(NetworkOptions{Name: "front", Driver: DriverUser, IPv6: true, Pools: pools}, &state.Networks{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &state.Networks{Networks: []state.NetworkRecord{front}}
	c := member(state.Attachment{Network: front.ID, Name: "front", Address6: netip.MustParseAddr("fd66::9")})
	members, err := take(n, c)
	if err != nil {
		t.Fatal(err)
	}
	plan := m.planNICs(c, members, nil, 1500)
	if p := plan[0].User; p == nil || p.Guest.String() != "10.66.0.2/24" || p.Guest6.String() != "fd66::9/64" || p.Gateway6.String() != "fd66::1" {
		t.Fatalf("%+v", plan[0].User)
	}
	if _, guest := nics(plan); guest[0].Address6 != "fd66::9/64" || guest[0].Gateway6 != "fd66::1" {
		t.Errorf("%+v", guest)
	}
	if lines, err := hosts(c, plan); err != nil || len(lines) != 2 || lines[1].Addr != "fd66::9" {
		t.Errorf("%+v, %v", lines, err)
	}
	plan[0].User.Internal = true
	if _, guest := nics(plan); guest[0].Address6 != "fd66::9/64" || guest[0].Gateway6 != "" {
		t.Errorf("internal: %+v", guest)
	}
}
