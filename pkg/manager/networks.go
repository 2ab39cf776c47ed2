package manager

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/network/ipam"
	"github.com/micropod/micropod/pkg/state"
)

// Drivers of networks.
const (
	DriverBridge = "bridge" // devices of the kernel: root's
	DriverUser   = "user"   // between the VMs' supervisors: anybody's
	driverNull   = "null"   // of NetworkNone
)

// DefaultDriver is that of a network whose user says nothing of it.
func DefaultDriver() string {
	if bridge.Permitted() == nil {
		return DriverBridge
	}
	return DriverUser
}

// optionMTU is docker's option of a network for its MTU, in bytes.
const optionMTU = "com.docker.network.driver.mtu"

// NamedNetwork is what `network ls` and `network inspect` show.
type NamedNetwork struct {
	ID, Name, Driver           string
	Created                    time.Time
	IPv6, Internal, Attachable bool
	// Pools are the IPv4 subnet and the IPv6 subnet, if there are any.
	Pools           []NetworkPool
	Options, Labels map[string]string
	// Members are the containers that run in it.
	Members []NetworkMember
	// Used: a container is to be in it, whether it runs or not.
	Used bool
	// Predefined networks are always there.
	Predefined bool
}

// NetworkPool is a subnet of a network.
type NetworkPool struct {
	Subnet, Range netip.Prefix
	Gateway       netip.Addr
	Reserved      map[string]netip.Addr
}

// NetworkMember is a container that runs in a network.
type NetworkMember struct {
	ID, Name, MAC     string
	Address, Address6 netip.Prefix
}

// worded is an error in docker's words, which tell of its kind by themselves.
type worded struct {
	kind error
	text string
}

func (w *worded) Error() string   { return w.text }
func (w *worded) Is(t error) bool { return t == w.kind }

func wordedf(kind error, format string, args ...any) error {
	return &worded{kind, fmt.Sprintf(format, args...)}
}

// Networks lists the networks: docker's predefined ones of which there are any
// here, and those that users made.
func (m *Manager) Networks(context.Context) ([]NamedNetwork, error) {
	n, err := m.networks()
	if err != nil {
		return nil, err
	}
	m.reapMembers(n)
	used, err := m.usedNetworks()
	if err != nil {
		return nil, err
	}
	var out []NamedNetwork
	for _, r := range n.Networks {
		w := newNamedNetwork(r)
		w.Used = used[r.ID] || used[r.Name]
		if w.Members, err = m.members(&n, r); err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return append(out, predefinedNetworks()...), nil
}

// InspectNetwork returns one network.
func (m *Manager) InspectNetwork(ctx context.Context, ref string) (*NamedNetwork, error) {
	all, err := m.Networks(ctx)
	if err != nil {
		return nil, err
	}
	i, err := findNetwork(all, ref)
	if err != nil {
		return nil, err
	}
	return &all[i], nil
}

// findNetwork is Find of state, for a list that has the predefined ones too. Pure.
func findNetwork(all []NamedNetwork, ref string) (int, error) {
	var n state.Networks
	for _, w := range all {
		n.Networks = append(n.Networks, state.NetworkRecord{ID: w.ID, Name: w.Name})
	}
	r, err := n.Find(ref)
	if err != nil {
		return 0, networkError(err, ref)
	}
	return slices.IndexFunc(all, func(w NamedNetwork) bool { return w.ID == r.ID }), nil
}

// networkError is an error of state in docker's words.
func networkError(err error, ref string) error {
	switch {
	case errors.Is(err, state.ErrNoNetwork):
		return wordedf(ErrNotFound, "network %s not found", ref)
	case errors.Is(err, state.ErrAmbiguousNetwork):
		return wordedf(ErrAmbiguous, "network %s is ambiguous: it is the start of several IDs", ref)
	}
	return err
}

// networks reads the records, with docker's default network, which is made when
// somebody first looks for it.
func (m *Manager) networks() (state.Networks, error) {
	n, err := m.state.Networks()
	if err != nil {
		return n, err
	}
	if _, err := n.Find(NetworkBridge); err == nil {
		return n, nil
	}
	err = m.state.ChangeNetworks(func(now *state.Networks) error {
		if !slices.ContainsFunc(now.Networks, func(r state.NetworkRecord) bool { return r.Name == NetworkBridge }) {
			o := NetworkOptions{Name: NetworkBridge, Driver: DriverBridge}
			r, err := newNetwork(o, now, m.hostNetworks())
			if errors.Is(err, ErrConflict) {
				r, err = newNetwork(o, now, nil) // no place is free now: a start looks again
			}
			if err != nil {
				return err
			}
			now.Networks = append(now.Networks, r)
		}
		n = *now
		return nil
	})
	return n, err
}

func newNamedNetwork(r state.NetworkRecord) NamedNetwork {
	w := NamedNetwork{
		ID: r.ID, Name: r.Name, Driver: r.Driver, Created: r.Created, IPv6: r.Subnet6.IsValid(),
		Internal: r.Internal, Attachable: r.Attachable, Options: r.Options, Labels: r.Labels, Predefined: predefined(r.Name),
	}
	for _, p := range []NetworkPool{{Subnet: r.Subnet, Range: r.Range, Gateway: r.Gateway}, {Subnet: r.Subnet6, Range: r.Range6, Gateway: r.Gateway6}} {
		if !p.Subnet.IsValid() {
			continue
		}
		for name, a := range r.Reserved {
			if p.Subnet.Contains(a) {
				p.Reserved = withEntry(p.Reserved, name, a)
			}
		}
		w.Pools = append(w.Pools, p)
	}
	return w
}

func withEntry[V any](m map[string]V, key string, value V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[key] = value
	return m
}

// predefinedNetworks are those that have no record.
func predefinedNetworks() []NamedNetwork {
	var out []NamedNetwork
	for _, mode := range []struct{ name, driver string }{{NetworkNone, driverNull}, {NetworkUser, NetworkUser}} {
		out = append(out, NamedNetwork{ID: modeID(mode.name), Name: mode.name, Driver: mode.driver, Predefined: true})
	}
	return out
}

// modeID is the id of a network that has no record: the same everywhere.
func modeID(name string) string {
	sum := sha256.Sum256([]byte("micropod network " + name))
	return hex.EncodeToString(sum[:])
}

// predefined reports whether a network's name is docker's or ours.
func predefined(name string) bool {
	return slices.Contains([]string{NetworkBridge, NetworkNone, NetworkUser, NetworkDefault, "host"}, name)
}

// members are the containers that run in a network.
func (m *Manager) members(n *state.Networks, r state.NetworkRecord) ([]NetworkMember, error) {
	var out []NetworkMember
	for _, l := range n.LeasesIn(r.ID) {
		vm, err := m.state.Resolve(l.VM)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if m.inNetwork(vm) {
			out = append(out, NetworkMember{
				ID: vm.ID, Name: vm.Name, MAC: l.MAC, Address: prefixOf(l.Address, r.Subnet), Address6: prefixOf(l.Address6, r.Subnet6),
			})
		}
	}
	return out, nil
}

// inNetwork reports whether a container runs, or is on its way up or down. A start
// takes the container's lock before its addresses: there is no moment at which it
// could be missed.
func (m *Manager) inNetwork(vm state.VM) bool {
	running, err := m.state.Running(vm.ID)
	return (running || err != nil) && !m.served(vm.ID)
}

// reapMembers cleans up after supervisors that were lost, of containers that have
// an address. It takes the lock of the networks, which nobody may hold.
func (m *Manager) reapMembers(n state.Networks) {
	for _, l := range n.Leases {
		vm, err := m.state.Resolve(l.VM)
		if err == nil {
			_, _, err = m.status(vm)
		}
		if err != nil {
			m.log.Debug("look at a container in a network", "container", l.VM, "err", err)
		}
	}
}

// prefixOf is an address with the length of its network's prefix; invalid without
// an address.
func prefixOf(a netip.Addr, subnet netip.Prefix) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, subnet.Bits())
}

// usedNetworks are the ids and the names of those that a container is to be in.
func (m *Manager) usedNetworks() (map[string]bool, error) {
	vms, err := m.state.List()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, vm := range vms {
		c, err := m.state.ReadConfig(vm.ID)
		if err != nil {
			continue // a broken one cannot be started
		}
		for _, a := range attachments(c) {
			used[a.Network], used[a.Name] = true, true
		}
	}
	return used, nil
}

// tellNetwork tells what happened to a network.
func (m *Manager) tellNetwork(a events.Action, r state.NetworkRecord, attributes ...string) {
	m.tell(events.Network(a, events.Subject{ID: r.ID, Name: r.Name}, append(attributes, "type", r.Driver)...))
}

// takenSubnets are those of all networks but except, which a network must not overlap.
// Pure.
func takenSubnets(n *state.Networks, except string) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range n.Networks {
		if r.ID == except {
			continue
		}
		for _, p := range []netip.Prefix{r.Subnet, r.Subnet6} {
			if p.IsValid() {
				out = append(out, p)
			}
		}
	}
	return out
}

// mtuOf is the MTU that the user gave a network, 0 for none. Pure.
func mtuOf(r state.NetworkRecord) int {
	mtu, _ := strconv.Atoi(r.Options[optionMTU]) // checked when it was created
	return mtu
}

// overlap is docker's word for a subnet that another network has.
func overlap(p netip.Prefix, n *state.Networks) error {
	if ipam.Overlaps(p, takenSubnets(n, "")) {
		return wordedf(ErrConflict, "invalid pool request: Pool overlaps with other one on this address space")
	}
	return nil
}
