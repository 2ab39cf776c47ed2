package manager

import (
	"net/netip"
	"testing"

	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

// TestKeepLink: a VM that runs has its link where it was made, wherever the next one
// would be.
func TestKeepLink(t *testing.T) {
	has := []state.Network{
		{Mode: state.ModeUser, ID: "x", Name: "net", MAC: "02:42:0a:42:00:02", Address: "10.66.0.2/24", Gateway: "10.66.0.1"},
		{Mode: state.ModeUser, Name: NetworkUser, MAC: "02:00:00:00:00:01", Address: "10.0.2.15/24", Gateway: "10.0.2.2"},
	}
	taken := []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}
	plan := func() network.NIC {
		p := network.User(taken, nil)
		return network.NIC{Name: NetworkUser, User: &p}
	}
	n := plan()
	keepLink(n, has)
	want := network.User(nil, nil)
	if u := n.User; u.MAC != "02:00:00:00:00:01" || u.Guest != want.Guest || u.Gateway != want.Gateway || u.GatewayMAC != want.GatewayMAC {
		t.Errorf("%+v", u)
	}
	for name, has := range map[string][]state.Network{"none": nil, "damaged": {{Mode: state.ModeUser, Address: "nonsense", Gateway: "10.0.2.2"}}, "another": has[:1]} {
		n := plan()
		keepLink(n, has)
		if n.User.Guest != plan().User.Guest {
			t.Errorf("%s: %+v", name, n.User)
		}
	}
	other := network.NIC{Name: "net", User: &network.Plan{Network: "x"}}
	if keepLink(other, has); other.User.Guest.IsValid() {
		t.Errorf("a place in a network: %+v", other.User)
	}
}

// TestLeaseMore: an address in a network that is to be left is not another's before it
// is.
func TestLeaseMore(t *testing.T) {
	one, two := networkNamed("one", "10.66.0.0/29"), networkNamed("two", "10.77.0.0/29")
	n := &state.Networks{Networks: []state.NetworkRecord{one, two}}
	c := member(state.Attachment{Network: one.ID, Name: one.Name})
	if _, err := take(n, c); err != nil {
		t.Fatal(err)
	}
	c.Networks = []state.Attachment{{Network: two.ID, Name: two.Name}}
	got := make([]membership, 1)
	if err := leaseMore(n, c, c.Networks, got); err != nil || got[0].network.ID != two.ID || len(n.Leases) != 2 {
		t.Errorf("%+v, %+v, %v", got, n.Leases, err)
	}
	if _, err := take(n, c); err != nil || len(n.Leases) != 1 {
		t.Errorf("at the next start: %+v, %v", n.Leases, err)
	}
}
