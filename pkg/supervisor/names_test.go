package supervisor

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

// TestNames asks for containers of two networks, one of which is the VM's own.
func TestNames(t *testing.T) {
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	front, back := state.NewID(), state.NewID()
	container := func(name string) string {
		id := state.NewID()
		if err := store.Create(state.Config{ID: id, Name: name}, func(state.Paths) error { return nil }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	run := func(id string) {
		lock, err := store.Lock(id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { lock.Unlock() })
	}
	web, twin, far, stopped := container("Web"), container("twin"), container("far"), container("stopped")
	for _, id := range []string{web, twin, far} {
		run(id)
	}
	addr := netip.MustParseAddr
	err = store.ChangeNetworks(func(n *state.Networks) error {
		n.Leases = []state.Lease{
			{Network: front, VM: web, Address: addr("10.66.0.2"), Address6: addr("fd66::2"), Names: []string{"www", "shop"}},
			{Network: front, VM: twin, Address: addr("10.66.0.3"), Address6: addr("fd66::3"), Names: []string{"www"}},
			{Network: back, VM: far, Address: addr("10.77.0.2"), Names: []string{"www"}},
			{Network: front, VM: stopped, Address: addr("10.66.0.4")},
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a := answers{store: store, own: map[string]string{front: "front"}}
	for name, want := range map[string]string{
		"web": "[10.66.0.2 fd66::2]", "web.front": "[10.66.0.2 fd66::2]", "shop": "[10.66.0.2 fd66::2]", web[:12]: "[10.66.0.2 fd66::2]",
		"www": "[10.66.0.2 fd66::2 10.66.0.3 fd66::3]", // of two, as in docker
		"far": "[]", "far.back": "[]", "web.back": "[]", "stopped": "[]", "": "[]", ".front": "[]", "nope": "[]",
	} {
		addrs, known := a.lookup(name)
		if got := fmt.Sprint(addrs); got != want || known != (want != "[]") {
			t.Errorf("%q: %s, %v; want %s", name, got, known, want)
		}
	}
	for at, want := range map[string]string{"10.66.0.2": "[Web.front]", "fd66::2": "[Web.front]", "10.77.0.2": "[]", "10.66.0.4": "[]", "192.0.2.1": "[]"} {
		if got := fmt.Sprint(a.reverse(addr(at))); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
	for at, want := range map[string]string{"10.66.0.3": store.Paths(twin).Peer(), "fd66::3": store.Paths(twin).Peer(), "fd66::2": "", "fd66::9": "", "10.66.0.2": "", "10.66.0.4": "", "10.66.0.9": "", "10.77.0.2": ""} {
		a.vm = web
		if got, ok := a.peer(front, addr(at)); got != want || ok != (want != "") {
			t.Errorf("who has %s: %q, %v; want %q", at, got, ok, want)
		}
	}
	if got, ok := a.peer(back, addr("10.77.0.2")); ok {
		t.Errorf("in another network: %q", got)
	}
	none := answers{store: store, own: map[string]string{}}
	if _, known := none.lookup("web"); known {
		t.Error("docker's default network has names")
	}
}
