package manager

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// TestConnect changes the record of a container that does not run.
func TestConnect(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two", "three", "four", "five"} {
		if _, err := m.CreateNetwork(t.Context(), NetworkOptions{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	c := member(state.Attachment{Network: NetworkUser, Name: NetworkUser})
	if err := m.state.Create(*c, func(state.Paths) error { return nil }); err != nil {
		t.Fatal(err)
	}
	connect := func(name string) error {
		return m.ConnectNetwork(t.Context(), c.Name, NetworkAttachment{Network: name, Aliases: []string{"x"}})
	}
	if err := errors.Join(connect("one"), connect("two")); err != nil {
		t.Fatal(err)
	}
	if err := connect("two"); err == nil || err.Error() != "endpoint with name "+c.Name+" already exists in network two" {
		t.Errorf("twice: %v", err)
	}
	if err := errors.Join(connect("three"), connect("four")); !errors.Is(err, ErrInvalid) {
		t.Errorf("more than a guest can have: %v", err)
	}
	for _, name := range []string{NetworkUser, "one"} {
		if err := m.DisconnectNetwork(t.Context(), c.ID, name, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.DisconnectNetwork(t.Context(), c.ID, "one", false); err == nil || !strings.HasSuffix(err.Error(), "is not connected to the network one") {
		t.Errorf("a second time: %v", err)
	}
	now, err := m.Inspect(t.Context(), c.ID)
	if err != nil || len(now.Attachments) != 2 || now.Attachments[0].Name != "two" || now.Attachments[1].Name != "three" {
		t.Fatalf("%+v, %v", now, err)
	}
}

// TestDisconnectFrees: the address is free before anybody can connect the container
// again, who would be given it once more.
func TestDisconnectFrees(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.CreateNetwork(t.Context(), NetworkOptions{Name: "net", Pools: []NetworkPool{{Subnet: netip.MustParsePrefix("10.66.0.0/24")}}})
	c := member()
	err = errors.Join(err, m.state.Create(*c, func(state.Paths) error { return nil }),
		m.ConnectNetwork(t.Context(), c.Name, NetworkAttachment{Network: "net", Address: netip.MustParseAddr("10.66.0.9")}))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	err = m.state.ChangeNetworks(func(*state.Networks) error { // until it ends, nothing is freed
		go func() { done <- m.DisconnectNetwork(t.Context(), c.ID, "net", false) }()
		return awaitHeld(t, m, c.ID)
	})
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if n, err := m.state.Networks(); err != nil || len(n.Leases) > 0 {
		t.Errorf("%+v, %v", n.Leases, err)
	}
}

// TestDisconnectHalf: of who was killed while he connected a container only the address
// is left, and the VM may be in the network: it can leave.
func TestDisconnectHalf(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.CreateNetwork(t.Context(), NetworkOptions{Name: "net"})
	c := member()
	err = errors.Join(err, m.state.Create(*c, func(state.Paths) error { return nil }), m.state.ChangeNetworks(func(n *state.Networks) error {
		r, err := n.Find("net")
		if err == nil {
			_, err = lease(n, r, c, state.Attachment{Network: r.ID, Name: r.Name})
		}
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DisconnectNetwork(t.Context(), c.ID, "net", false); err != nil {
		t.Error(err)
	}
	if n, err := m.state.Networks(); err != nil || len(n.Leases) > 0 {
		t.Errorf("%+v, %v", n.Leases, err)
	}
	if err := m.DisconnectNetwork(t.Context(), c.ID, "net", false); !errors.Is(err, ErrInvalid) {
		t.Errorf("a second time: %v", err)
	}
}

// awaitHeld waits until somebody keeps the description of a container, which is in one
// network all the time.
func awaitHeld(t *testing.T, m *Manager, id string) error {
	t.Helper()
	for since, end := time.Now(), time.Now().Add(time.Minute); time.Since(since) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
		c, err := m.state.ReadConfig(id)
		if err != nil {
			return err
		}
		if len(c.Networks) != 1 {
			return errors.New("the description is written before the address is free")
		}
		held, err := state.Held(m.state.Paths(id).Config())
		if err != nil || time.Now().After(end) {
			return fmt.Errorf("nobody holds the description: %w", errors.Join(err, context.DeadlineExceeded))
		}
		if !held {
			since = time.Now()
		}
	}
	return nil
}

// TestAnotherOfItsName: a network that was removed and made again is the one that
// the container is in, and it is in there once.
func TestAnotherOfItsName(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := member()
	err = m.state.Create(*c, func(state.Paths) error { return nil })
	connect := func() error {
		return m.ConnectNetwork(t.Context(), c.Name, NetworkAttachment{Network: "net", Address: netip.MustParseAddr("10.66.0.9")})
	}
	for i, subnet := range []string{"10.66.0.0/24", "10.77.0.0/24"} {
		if i > 0 {
			err = errors.Join(err, m.RemoveNetwork(t.Context(), "net"))
		}
		_, made := m.CreateNetwork(t.Context(), NetworkOptions{Name: "net", Pools: []NetworkPool{{Subnet: netip.MustParsePrefix(subnet)}}})
		if err = errors.Join(err, made); i == 0 {
			err = errors.Join(err, connect())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	now, err := m.state.ReadConfig(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.takeLeases(now, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("an address that is in the subnet of the first one only: %v", err)
	}
	if all, err := m.Networks(t.Context()); err != nil || !slices.ContainsFunc(all, func(n NamedNetwork) bool { return n.Name == "net" && n.Used }) {
		t.Errorf("not used: %+v, %v", all, err)
	}
	if err := m.ConnectNetwork(t.Context(), c.Name, NetworkAttachment{Network: "net"}); !errors.Is(err, ErrConflict) {
		t.Errorf("connected twice: %v", err)
	}
	if err := m.DisconnectNetwork(t.Context(), c.Name, "net", false); err != nil {
		t.Error(err)
	}
}
