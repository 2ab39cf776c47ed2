package manager

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// TestRecordedEndpoint: what a supervisor records of a place is enough to leave it.
func TestRecordedEndpoint(t *testing.T) {
	n := state.Network{
		Mode: state.ModeBridge, ID: state.NewID(), Name: "net", Device: "mp0a", MAC: "02:42:0a:42:00:02", Address: "10.66.0.2/24",
		Gateway: "10.66.0.1", Address6: "fd66::2/64", Gateway6: "fd66::1", MTU: 1500, NameServer: 4000,
		Ports: []PortBinding{{Port: "80/tcp", HostPort: 8080}, {Port: "53/udp", HostIP: "127.0.0.1", HostPort: 53}},
	}
	e, err := recordedEndpoint("vm", n)
	if err != nil || e.Network.Subnet.String() != "10.66.0.0/24" || e.Network.Subnet6.String() != "fd66::/64" || len(e.Forwards) != 3 {
		t.Errorf("%+v, %v", e, err)
	}
	for _, broken := range []func(*state.Network){
		func(n *state.Network) { n.Address = "x" }, func(n *state.Network) { n.Gateway = "" }, func(n *state.Network) { n.Address6 = "x" },
		func(n *state.Network) { n.Gateway6 = "x" }, func(n *state.Network) { n.Ports = []PortBinding{{Port: "x"}} },
	} {
		b := n
		broken(&b)
		if _, err := recordedEndpoint("vm", b); err == nil {
			t.Errorf("accepted: %+v", b)
		}
	}
}

// TestEndpointsOf: whoever restores the networks does not bring back what a
// supervisor takes away at the same time, and does not wonder that it is there.
func TestEndpointsOf(t *testing.T) {
	of := func(mode, device string, leaving bool) state.Network {
		return state.Network{Mode: mode, Device: device, Address: "10.66.0.2/24", Gateway: "10.66.0.1", Leaving: leaving}
	}
	all := []state.Network{of(state.ModeBridge, "goes", true), of(state.ModeUser, "", false), of(state.ModeBridge, "stays", false)}
	if got := endpointsOf("vm", all, stays); len(got) != 1 || got[0].Device != "stays" {
		t.Errorf("%+v", got)
	}
	if got := endpointsOf("vm", all, inBridge); len(got) != 2 || got[0].Device != "goes" {
		t.Errorf("%+v", got)
	}
}

// TestUnreadEndpoints: who cannot read a record does not restore the networks without
// the VM, but one that is damaged is in nobody's way.
func TestUnreadEndpoints(t *testing.T) {
	m, vm, _ := lockedContainer(t)
	st := state.Status{Networks: []state.Network{{Mode: state.ModeBridge, Address: "10.66.0.2/24", Gateway: "10.66.0.1"}}}
	if err := state.WriteStatus(m.state.Paths(vm.ID), st); err != nil {
		t.Fatal(err)
	}
	want := func(endpoints int, fails bool) {
		t.Helper()
		if all, err := m.recordedEndpoints(inBridge); len(all) != endpoints || (err != nil) != fails {
			t.Errorf("%+v, %v", all, err)
		}
	}
	want(1, false)
	path := m.state.Paths(vm.ID).Status()
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(0, false)
	if err := errors.Join(os.Remove(path), os.Symlink(path, path)); err != nil {
		t.Fatal(err)
	}
	want(0, true)
}

// TestLostNetworks: of a container whose supervisor was lost nothing is published.
func TestLostNetworks(t *testing.T) {
	st := state.Status{Phase: state.PhaseRunning, Networks: []state.Network{{Mode: state.ModeUser, Ports: []PortBinding{{Port: "80/tcp", HostPort: 8080}}}}}
	if endLost(&st, time.Now()); st.Networks != nil {
		t.Errorf("%+v", st.Networks)
	}
}
