package manager

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/state"
)

// TestPlaceNetwork: a network keeps its subnet and who has an address in it while
// that can be had, and has the first that can be had otherwise.
func TestPlaceNetwork(t *testing.T) {
	every := []string{"172.16.0.0/12", "192.168.0.0/16"}
	other := errors.New("no")
	for name, c := range map[string]struct {
		taken, inUse []string
		fails        error
		want         string
		leases       int
		err          error
	}{
		"free":                            {want: "172.17.0.0/16", leases: 1},
		"taken":                           {taken: []string{"172.17.9.0/24", "172.18.0.0/16"}, want: "172.19.0.0/16"},
		"taken meanwhile":                 {inUse: []string{"172.17.0.0/16", "172.18.0.0/16"}, want: "172.19.0.0/16"},
		"both":                            {taken: []string{"172.17.0.0/16"}, inUse: []string{"172.18.0.0/16"}, want: "172.19.0.0/16"},
		"routes to all":                   {taken: every, want: "172.17.0.0/16", leases: 1},
		"routes to all, and a device":     {taken: every, inUse: []string{"172.17.0.0/16"}, err: bridge.ErrInUse},
		"something else is in the way":    {fails: other, err: other},
		"a device, and nothing else free": {taken: []string{"172.18.0.0/15", "172.20.0.0/14", "172.24.0.0/13", "192.168.0.0/16"}, inUse: []string{"172.17.0.0/16"}, err: bridge.ErrInUse},
	} {
		t.Run(name, func(t *testing.T) {
			n := &state.Networks{Networks: []state.NetworkRecord{networkNamed(NetworkBridge, "172.17.0.0/16"), networkNamed("back", "10.66.0.0/24")}}
			r := &n.Networks[0]
			n.Leases = []state.Lease{{Network: r.ID, VM: "a"}, {Network: n.Networks[1].ID, VM: "a"}}
			reserve := func() error {
				if slices.Contains(c.inUse, r.Subnet.String()) {
					return fmt.Errorf("%s is %w", r.Subnet, bridge.ErrInUse)
				}
				return c.fails
			}
			err := placeNetwork(n, r, prefixes(c.taken), reserve)
			if !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if c.err != nil {
				return
			}
			if r.Subnet.String() != c.want || r.Gateway != r.Subnet.Addr().Next() {
				t.Errorf("%s with %s, want %s", r.Subnet, r.Gateway, c.want)
			}
			if len(n.LeasesIn(r.ID)) != c.leases || len(n.Leases) != c.leases+1 {
				t.Errorf("%+v, want %d", n.Leases, c.leases)
			}
		})
	}
}

func prefixes(all []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestAwaited: a bridge that nobody is in is not to be removed while a container of
// docker's default network is on its way up.
func TestAwaited(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := m.networks()
	if err != nil {
		t.Fatal(err)
	}
	bridged, other := bridgeNetwork(n.Networks[0], 0).Device(), bridgeNetwork(networkNamed("net", "10.66.0.0/29"), 0).Device()
	want := func(want bool) {
		t.Helper()
		if got := m.awaited(bridged); got != want {
			t.Errorf("%v, want %v", got, want)
		}
		if m.awaited(other) {
			t.Error("another network's")
		}
	}
	locked := func(c *state.Config) *state.FileLock {
		t.Helper()
		if err := m.state.Create(*c, func(state.Paths) error { return nil }); err != nil {
			t.Fatal(err)
		}
		lock, err := m.state.Lock(c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return lock
	}
	defer locked(member(state.Attachment{Network: NetworkUser, Name: NetworkUser})).Unlock()
	want(false)
	lock := locked(member(state.Attachment{Network: n.Networks[0].ID, Name: NetworkBridge}))
	want(true)
	lock.Unlock()
	want(false)
}
