package manager

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

// networkNamed is a record of a network with one subnet.
func networkNamed(name, subnet string) state.NetworkRecord {
	r, err := newNetwork(NetworkOptions{Name: name, Pools: []NetworkPool{{Subnet: netip.MustParsePrefix(subnet)}}}, &state.Networks{}, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// member is a container in networks.
func member(networks ...state.Attachment) *state.Config {
	id := state.NewID()
	return &state.Config{ID: id, Name: "c-" + id[:6], Hostname: id[:12], Networks: append([]state.Attachment{}, networks...)}
}

func take(n *state.Networks, c *state.Config) ([]membership, error) {
	got := make([]membership, len(c.Networks))
	return got, leaseAll(n, c, c.Networks, got)
}

func TestLease(t *testing.T) {
	r := networkNamed("net", "10.66.0.0/29") // .1 is the gateway
	n := &state.Networks{Networks: []state.NetworkRecord{r}}
	in := state.Attachment{Network: r.ID, Name: r.Name, Aliases: []string{"a"}}
	first, second := member(in), member(in)
	for _, c := range []*state.Config{first, second, first} {
		if _, err := take(n, c); err != nil {
			t.Fatal(err)
		}
	}
	l := n.Lease(r.ID, first.ID)
	if len(n.Leases) != 2 || l.Address.String() != "10.66.0.2" || l.MAC != "02:42:0a:42:00:02" || !slices.Equal(l.Names, []string{"a", first.Hostname}) {
		t.Fatalf("%+v", n.Leases)
	}
	// A network that was removed and made again, in another place.
	again := networkNamed("net", "10.77.0.0/24")
	n.Drop(r.ID)
	n.Networks = append(n.Networks, again)
	got, err := take(n, first)
	if err != nil || got[0].lease.Address.String() != "10.77.0.2" || len(n.Leases) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	n.Drop(again.ID)
	if _, err := take(n, first); !errors.Is(err, ErrNotFound) || err.Error() != "network net not found" {
		t.Errorf("without the network: %v", err)
	}
	// What the container has left is free.
	first.Networks = []state.Attachment{{Network: NetworkUser, Name: NetworkUser}}
	n.Leases = append(n.Leases, state.Lease{Network: r.ID, VM: first.ID})
	if _, err := take(n, first); err != nil || len(n.Leases) != 0 {
		t.Errorf("%v, %+v", err, n.Leases)
	}
}

func TestChosenAddress(t *testing.T) {
	r := networkNamed("net", "10.66.0.0/29")
	n := &state.Networks{Networks: []state.NetworkRecord{r}}
	at := func(ip, mac string) state.Attachment {
		a := state.Attachment{Network: r.ID, Name: r.Name, MAC: mac}
		if ip != "" {
			a.Address = netip.MustParseAddr(ip)
		}
		return a
	}
	if got, err := take(n, member(at("10.66.0.3", "02:00:00:00:00:07"))); err != nil || got[0].lease.MAC != "02:00:00:00:00:07" {
		t.Fatalf("%+v, %v", got, err)
	}
	for text, a := range map[string]state.Attachment{
		"Address already in use":                                         at("10.66.0.3", ""),
		"Address already in use: 10.66.0.1 on network net":               at("10.66.0.1", ""),
		"MAC address 02:00:00:00:00:07 is already in use on network net": at("", "02:00:00:00:00:07"),
	} {
		if _, err := take(n, member(a)); !errors.Is(err, ErrConflict) || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
	for _, ip := range []string{"10.66.0.8", "10.66.0.0", "10.66.0.7", "192.0.2.1"} {
		if err := checkAsked(&r, at(ip, "")); err == nil || err.Error() != "no configured subnet contains IP address "+ip {
			t.Errorf("%s: %v", ip, err)
		}
	}
	if err := checkAsked(&r, state.Attachment{Address6: netip.MustParseAddr("fd00::5")}); err == nil {
		t.Error("an IPv6 address in a network without IPv6")
	}
	// The rest of a network with 8 addresses: 2, 4, 5 and 6.
	for range 4 {
		if _, err := take(n, member(at("", ""))); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf("no available IPv4 addresses on this network's address pools: net (%s)", r.ID)
	if _, err := take(n, member(at("", ""))); !errors.Is(err, ErrConflict) || err.Error() != want {
		t.Errorf("full: %v", err)
	}
}

// TestTwentyAtOnce: as many containers that start at one time have as many
// addresses, and keep them.
func TestTwentyAtOnce(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := m.CreateNetwork(t.Context(), NetworkOptions{Name: "net", IPv6: true, Pools: []NetworkPool{{Subnet: netip.MustParsePrefix("10.66.0.0/24")}}})
	if err != nil {
		t.Fatal(err)
	}
	var all []*state.Config
	for range 20 {
		c := member(state.Attachment{Network: id, Name: "net"})
		if err := m.state.Create(*c, func(state.Paths) error { return nil }); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	addresses := func() map[string]string {
		var mu sync.Mutex
		var wg sync.WaitGroup
		got := map[string]string{}
		for _, c := range all {
			wg.Go(func() {
				members, err := m.takeLeases(c, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[members[0].lease.Address.String()+" "+members[0].lease.Address6.String()] = c.ID
			})
		}
		wg.Wait()
		return got
	}
	first := addresses()
	if len(first) != 20 {
		t.Fatalf("%d addresses: %v", len(first), first)
	}
	for at, id := range addresses() {
		if first[at] != id {
			t.Errorf("%s was %s's, and is %s's", at, first[at], id)
		}
	}
	n, err := m.InspectNetwork(t.Context(), "net")
	if err != nil || len(n.Members) != 0 || !n.Used {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestRemoveNetwork: who runs keeps the network.
func TestRemoveNetwork(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := m.CreateNetwork(t.Context(), NetworkOptions{Name: "net"})
	if err != nil {
		t.Fatal(err)
	}
	c := member(state.Attachment{Network: id, Name: "net"})
	if err := m.state.Create(*c, func(state.Paths) error { return nil }); err != nil {
		t.Fatal(err)
	}
	lock, err := m.state.Lock(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.takeLeases(c, nil); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("error while removing network: network net has active endpoints (name:%q id:%q)", c.Name, c.ID[:12])
	if err := m.RemoveNetwork(t.Context(), "net"); !errors.Is(err, ErrConflict) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if n, err := m.InspectNetwork(t.Context(), id[:6]); err != nil || len(n.Members) != 1 || n.Members[0].Address.Bits() != 16 {
		t.Errorf("%+v, %v", n, err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if done, err := m.PruneNetworks(t.Context(), func(NamedNetwork) bool { return true }); err != nil || len(done) != 0 {
		t.Errorf("a stopped container needs it, and it was pruned: %v, %v", done, err)
	}
	if err := m.RemoveNetwork(t.Context(), "net"); err != nil {
		t.Error(err)
	}
	if _, err := m.takeLeases(c, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a start without its network: %v", err)
	}
}

// TestPlan is a container in an internal network and in two others.
func TestPlan(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	back, front := networkNamed("back", "10.66.0.0/24"), networkNamed("front", "10.0.2.0/24")
	back.Internal, front.Options = true, map[string]string{optionMTU: "1400"}
	n := &state.Networks{Networks: []state.NetworkRecord{back, front}}
	c := member(state.Attachment{Network: back.ID, Name: "back"}, state.Attachment{Network: front.ID, Name: "front"}, state.Attachment{Network: NetworkUser, Name: NetworkUser, MAC: "02:00:00:00:00:01"})
	got, err := take(n, c)
	if err != nil {
		t.Fatal(err)
	}
	plan := m.planNICs(c, got, nil, 1500)
	if err := addPorts(plan, []PortBinding{{Port: "80/tcp", HostPort: 8080}}); err != nil {
		t.Fatal(err)
	}
	devices, guest := nics(plan)
	want := []api.NIC{
		{MAC: "02:42:0a:42:00:02", MTU: 1500, Address: "10.66.0.2/24"},
		{MAC: "02:42:0a:00:02:02", MTU: 1400, Address: "10.0.2.2/24", Gateway: "10.0.2.1"},
		{MAC: "02:00:00:00:00:01", MTU: 65520, Address: "192.168.127.15/24"}, // beside the network above
	}
	if !slices.Equal(guest, want) {
		t.Errorf("guest: %+v", guest)
	}
	if devices[0].Device != "mp"+c.ID[:12]+"a" || devices[1].Device != "mp"+c.ID[:12]+"b" || devices[2].Device != "" || len(devices[0].Device) > 15 {
		t.Errorf("devices: %+v", devices)
	}
	if len(plan[0].Bridge.Ports) != 0 || len(plan[1].Bridge.Ports) != 1 || len(plan[2].User.Ports) != 0 || !plan[0].Bridge.Upstream {
		t.Errorf("plan: %+v", plan)
	}
	inside := []network.NIC{plan[0]}
	if err := addPorts(inside, []PortBinding{{Port: "80/tcp"}}); err != nil || len(inside[0].Bridge.Ports) != 0 {
		t.Errorf("an internal network publishes: %v", err)
	}
	c.Networks = c.Networks[:1]
	if alone := m.planNICs(c, got[:1], nil, 1500); alone[0].Bridge.Upstream {
		t.Error("names of an internal network are asked of others")
	}
}

func TestAttachment(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for mac, ok := range map[string]bool{"02:00:00:00:00:01": true, "02-00-00-00-00-01": true, "01:00:00:00:00:01": false, "00:00:00:00:00:00": false, "02:00:00:00:00": false, "02:00:00:00:00:00:00:01": false} {
		a, err := m.attachment(NetworkAttachment{Network: NetworkUser, MAC: mac})
		if (err == nil) != ok || ok && a.MAC != "02:00:00:00:00:01" {
			t.Errorf("%s: %+v, %v", mac, a, err)
		}
	}
	for text, a := range map[string]NetworkAttachment{
		"network nope not found": {Network: "nope"},
		"user specified IP address is supported on user defined networks only": {Network: DriverBridge, Address: netip.MustParseAddr("172.17.0.9")},
		"network-scoped aliases are only supported for user-defined networks":  {Network: NetworkUser, Aliases: []string{"a"}},
	} {
		if _, err := m.attachment(a); err == nil || err.Error() != text {
			t.Errorf("%+v: %v", a, err)
		}
	}
}
