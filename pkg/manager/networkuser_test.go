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
		"IPv6":    {NetworkOptions{Driver: DriverUser, IPv6: true}, "invalid network config: a network of driver user has no IPv6"},
	} {
		r, err := newNetwork(c.o, &state.Networks{}, nil)
		if err != nil && err.Error() != c.want || err == nil && (c.want != "" || r.Driver != c.o.Driver) {
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
