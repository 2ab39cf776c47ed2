package state

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// leased is a lease whose address ends in n.
func leased(network, vm string, n byte) Lease {
	return Lease{Network: network, VM: vm, Address: netip.AddrFrom4([4]byte{10, 66, 0, n}), MAC: fmt.Sprintf("02:42:0a:42:00:%02x", n)}
}

func inNetwork(t *testing.T, s *Store, change func(*Networks)) {
	t.Helper()
	err := s.ChangeNetworks(func(n *Networks) error {
		change(n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func leases(t *testing.T, s *Store) []Lease {
	t.Helper()
	n, err := s.Networks()
	if err != nil {
		t.Fatal(err)
	}
	return n.Leases
}

func TestLeasesGoWithTheContainer(t *testing.T) {
	s := newStore(t)
	net := NewID()
	web, db := create(t, s, "web"), create(t, s, "db")
	inNetwork(t, s, func(n *Networks) {
		n.Networks = append(n.Networks, NetworkRecord{ID: net, Name: "net", Subnet: netip.MustParsePrefix("10.66.0.0/24"), Gateway: netip.MustParseAddr("10.66.0.1")})
		n.Leases = append(n.Leases, leased(net, web, 2), leased(net, db, 3))
	})
	if err := s.Remove(web); err != nil {
		t.Fatal(err)
	}
	if got := leases(t, s); len(got) != 1 || got[0].VM != db {
		t.Errorf("after the removal of one: %+v", got)
	}
	inNetwork(t, s, func(n *Networks) { n.Drop(net) })
	if got := leases(t, s); len(got) != 0 {
		t.Errorf("after the removal of the network: %+v", got)
	}
}

// TestStrayLease is of a container that a crash took before its address was free.
func TestStrayLease(t *testing.T) {
	s := newStore(t)
	id := create(t, s, "web")
	inNetwork(t, s, func(n *Networks) { n.Leases = append(n.Leases, leased(NewID(), id, 2)) })
	if found, err := s.CheckNetworks(); err != nil || len(found) != 0 {
		t.Errorf("a container is there: %v, %v", found, err)
	}
	if err := s.forget(id); err != nil {
		t.Fatal(err)
	}
	found, err := s.CheckNetworks()
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Subject, "10.66.0.2") || found[0].Repair == nil {
		t.Fatalf("%+v, %v", found, err)
	}
	if err := found[0].Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	if found, err := s.CheckNetworks(); err != nil || len(found) != 0 || len(leases(t, s)) != 0 {
		t.Errorf("after the repair: %v, %v, %v", found, err, leases(t, s))
	}
}

// TestDamagedNetworks: nobody knows what was in the file, so it stays for a person,
// and containers can be removed all the same.
func TestDamagedNetworks(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "no version": "{}", "newer": `{"version":99}`, "no address": `{"version":1,"leases":[{"address":"10.0.0"}]}`,
		"no VM":      fmt.Sprintf(`{"version":1,"leases":[{"network":"%s","vm":"ab","address":"10.66.0.2"}]}`, NewID()),
		"no network": `{"version":1,"networks":[{"id":"../../etc","subnet":"10.66.0.0/24","gateway":"10.66.0.1"}]}`,
		"no gateway": fmt.Sprintf(`{"version":1,"networks":[{"id":"%s","subnet":"10.66.0.0/24"}]}`, NewID()),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			id := create(t, s, "web")
			path := filepath.Join(s.Root(), "networks.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			want := ErrDamaged
			if name == "newer" {
				want = ErrNewer
			}
			if _, err := s.Networks(); !errors.Is(err, want) {
				t.Errorf("read: %v", err)
			}
			if err := s.ChangeNetworks(func(*Networks) error { return nil }); !errors.Is(err, want) {
				t.Errorf("change: %v", err)
			}
			if err := s.Remove(id); !errors.Is(err, want) {
				t.Errorf("remove: %v", err)
			}
			if _, err := s.Resolve(id); !errors.Is(err, ErrNotFound) {
				t.Errorf("the container is still there: %v", err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != text {
				t.Errorf("the file is %q, %v", b, err)
			}
			found, err := s.CheckNetworks()
			if want == ErrDamaged && (err != nil || len(found) != 1 || found[0].Repair != nil) || want == ErrNewer && !errors.Is(err, ErrNewer) {
				t.Errorf("check: %+v, %v", found, err)
			}
		})
	}
}

func TestFailedChange(t *testing.T) {
	s := newStore(t)
	no := errors.New("no")
	err := s.ChangeNetworks(func(n *Networks) error {
		n.Networks = append(n.Networks, NetworkRecord{ID: NewID()})
		return no
	})
	if n, rerr := s.Networks(); !errors.Is(err, no) || rerr != nil || len(n.Networks) != 0 {
		t.Errorf("%v, %v, %+v", err, rerr, n)
	}
}

func TestFindNetwork(t *testing.T) {
	id := func(c string) string { return strings.Repeat(c, 64) }
	n := Networks{Networks: []NetworkRecord{{ID: id("a"), Name: "front"}, {ID: "ab" + id("c")[2:], Name: "back"}, {ID: id("d"), Name: id("a")[:12]}}}
	for ref, want := range map[string]string{
		"front": "front", id("a"): "front", "ab": "back", "ddd": id("a")[:12],
		id("a")[:12]: id("a")[:12], // a name counts more than the start of an id
	} {
		if r, err := n.Find(ref); err != nil || r.Name != want {
			t.Errorf("%s: %+v, %v", ref, r, err)
		}
	}
	if _, err := n.Find("a"); !errors.Is(err, ErrAmbiguousNetwork) {
		t.Errorf("two networks begin with a: %v", err)
	}
	for _, ref := range []string{"", "x", "fro"} {
		if _, err := n.Find(ref); !errors.Is(err, ErrNoNetwork) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestTaken(t *testing.T) {
	addr := netip.MustParseAddr
	r := &NetworkRecord{ID: NewID(), Gateway: addr("10.66.0.1"), Gateway6: addr("fd66::1"), Reserved: map[string]netip.Addr{"nas": addr("10.66.0.9")}}
	n := Networks{Leases: []Lease{leased(r.ID, "web", 2), leased(NewID(), "db", 3)}}
	for a, want := range map[string]bool{"10.66.0.1": true, "fd66::1": true, "10.66.0.9": true, "10.66.0.2": true, "10.66.0.3": false, "10.66.0.4": false} {
		if n.Taken(r, addr(a), "other") != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
	if n.Taken(r, addr("10.66.0.2"), "web") {
		t.Error("a container's own address is not free for it")
	}
}
