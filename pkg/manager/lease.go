package manager

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/network/ipam"
	"github.com/micropod/micropod/pkg/state"
)

// NetworkAttachment is a network that a container is to be in. In CreateOptions
// its Network is an id, a name or the start of an id.
type NetworkAttachment = state.Attachment

// attachments are the networks of a container: those of its record, in one of an
// older version what its mode says. Pure.
func attachments(c *state.Config) []state.Attachment {
	switch {
	case c.Networks != nil:
		return c.Networks
	case c.HostConfig.NetworkMode == NetworkNone:
		return nil
	}
	return []state.Attachment{{Network: NetworkUser, Name: NetworkUser}}
}

// resolveNetworks finds the networks that a new container is to be in.
func (m *Manager) resolveNetworks(c *state.Config, asked []NetworkAttachment) error {
	if shares(c.HostConfig) {
		c.Networks = []state.Attachment{}
		return nil
	}
	if len(asked) == 0 {
		asked = []NetworkAttachment{{Network: NetworkDefault}}
	}
	asked = slices.Clone(asked)
	for i := range asked {
		if asked[i].Network != NetworkDefault {
			continue
		}
		name, why, err := m.DefaultNetwork()
		if err != nil {
			return err
		}
		m.log.Debug("default network", "name", name, "why", why)
		asked[i].Network = name
	}
	c.HostConfig.NetworkMode, c.Networks = asked[0].Network, []state.Attachment{}
	if asked[0].Network == NetworkNone && len(asked) == 1 {
		return nil
	}
	for _, a := range asked {
		a, err := m.attachment(a)
		if err != nil {
			return err
		}
		if err := addAttachment(c, a); err != nil {
			return err
		}
	}
	return nil
}

// sameNetwork reports whether an attachment is to the network of a. One that was
// removed and made again is the same, as it is to who starts the container.
func sameNetwork(a state.Attachment) func(state.Attachment) bool {
	return func(o state.Attachment) bool { return o.Network == a.Network || o.Name == a.Name }
}

// addAttachment puts a container into one more network. Pure.
func addAttachment(c *state.Config, a state.Attachment) error {
	if slices.ContainsFunc(c.Networks, sameNetwork(a)) {
		return wordedf(ErrInvalid, "network %q is specified multiple times", a.Name)
	}
	if len(c.Networks) == api.MaxNICs {
		return wordedf(ErrInvalid, "a container has at most %d networks", api.MaxNICs)
	}
	c.Networks = append(c.Networks, a)
	return nil
}

// attachment finds the network of what a user asked for, and refuses what cannot
// be had there.
func (m *Manager) attachment(a NetworkAttachment) (state.Attachment, error) {
	if a.MAC != "" {
		hw, err := net.ParseMAC(a.MAC)
		if err != nil || len(hw) != 6 || hw[0]&1 != 0 || hw.String() == "00:00:00:00:00:00" { // of a group, or of nobody
			return a, wordedf(ErrInvalid, "%s is not a valid mac address", a.MAC)
		}
		a.MAC = hw.String()
	}
	switch a.Network {
	case NetworkNone:
		return a, errNoNetworkMode()
	case NetworkUser:
		a.Name = NetworkUser
		return a, onlyUserDefined(a)
	}
	n, err := m.networks()
	if err != nil {
		return a, err
	}
	r, err := n.Find(a.Network)
	if err != nil {
		return a, networkError(err, a.Network)
	}
	a.Network, a.Name = r.ID, r.Name
	if err := checkDriver(r.Driver); err != nil {
		return a, err
	}
	if r.Name == NetworkBridge {
		return a, onlyUserDefined(a)
	}
	return a, checkAsked(r, a)
}

// onlyUserDefined refuses what docker has in networks of users only.
func onlyUserDefined(a state.Attachment) error {
	switch {
	case len(a.Aliases) > 0:
		return wordedf(ErrInvalid, "network-scoped aliases are only supported for user-defined networks")
	case a.Address.IsValid() || a.Address6.IsValid():
		return wordedf(ErrInvalid, "user specified IP address is supported on user defined networks only")
	}
	return nil
}

// checkAsked refuses addresses that are not the network's to give.
func checkAsked(r *state.NetworkRecord, a state.Attachment) error {
	for _, f := range []struct {
		subnet netip.Prefix
		addr   netip.Addr
	}{{r.Subnet, a.Address}, {r.Subnet6, a.Address6}} {
		if f.addr.IsValid() && (!f.subnet.IsValid() || !ipam.Usable(f.subnet, f.addr)) {
			return wordedf(ErrInvalid, "no configured subnet contains IP address %s", f.addr)
		}
	}
	return nil
}

// membership is a network that a container is in, with its address there.
type membership struct {
	network state.NetworkRecord
	lease   state.Lease
}

// takeLeases gives a container its address in each of its recorded networks: the one
// that it had, if there is one. The caller holds the container's lock, which keeps
// the networks from being removed from then on. The answer has an entry for each
// attachment, empty for a link of its own. What prepare changes of the networks, if
// there is one, is before that.
func (m *Manager) takeLeases(c *state.Config, prepare func(*state.Networks, *state.Config) error) ([]membership, error) {
	return m.changeLeases(c, prepare, leaseAll)
}

// changeLeases is takeLeases with another way to take them than leaseAll.
func (m *Manager) changeLeases(c *state.Config, prepare func(*state.Networks, *state.Config) error, take leaseFunc) ([]membership, error) {
	list := attachments(c)
	got := make([]membership, len(list))
	if !slices.ContainsFunc(list, recorded) {
		return got, nil
	}
	if _, err := m.networks(); err != nil { // the default network is there
		return nil, err
	}
	err := m.state.ChangeNetworks(func(n *state.Networks) error {
		if prepare != nil {
			if err := prepare(n, c); err != nil {
				return err
			}
		}
		return take(n, c, list, got)
	})
	return got, err
}

// recorded reports whether a network has a record, and leases.
func recorded(a state.Attachment) bool { return a.Network != NetworkUser }

// leaseFunc fills got with what a container has in the networks of list.
type leaseFunc func(n *state.Networks, c *state.Config, list []state.Attachment, got []membership) error

// leaseAll leaves a container no address elsewhere. Pure.
func leaseAll(n *state.Networks, c *state.Config, list []state.Attachment, got []membership) error {
	ids, err := leaseEach(n, c, list, got)
	if err != nil {
		return err
	}
	// Of a network that the container has left, and a crash was before us.
	n.Free(func(l state.Lease) bool { return l.VM == c.ID && !slices.Contains(ids, l.Network) })
	return nil
}

// leaseMore leaves a container the addresses that it has elsewhere. Pure.
func leaseMore(n *state.Networks, c *state.Config, list []state.Attachment, got []membership) error {
	_, err := leaseEach(n, c, list, got)
	return err
}

// leaseEach fills got, and returns the networks' ids. Pure.
func leaseEach(n *state.Networks, c *state.Config, list []state.Attachment, got []membership) (ids []string, err error) {
	for i, a := range list {
		if !recorded(a) {
			continue
		}
		r, err := n.Find(a.Network)
		if errors.Is(err, state.ErrNoNetwork) {
			r, err = n.Find(a.Name) // removed, and made again
		}
		if err != nil {
			return nil, networkError(err, a.Name)
		}
		l, err := lease(n, r, c, a)
		if err != nil {
			return nil, err
		}
		ids = append(ids, r.ID)
		got[i] = membership{*r, *l}
	}
	return ids, nil
}

// lease is a container's address in a network, which is taken if it has none. Pure.
func lease(n *state.Networks, r *state.NetworkRecord, c *state.Config, a state.Attachment) (*state.Lease, error) {
	names := slices.Compact(append(slices.Clone(a.Aliases), c.Hostname))
	if l := n.Lease(r.ID, c.ID); l != nil {
		l.Names = names
		return l, nil
	}
	err := checkAsked(r, a) // again: the network may have been removed, and made in another place
	if err != nil {
		return nil, err
	}
	l := state.Lease{Network: r.ID, VM: c.ID, Names: names}
	if l.Address, err = address(n, r, c.ID, r.Subnet, r.Range, a.Address); err != nil {
		return nil, err
	}
	if r.Subnet6.IsValid() {
		if l.Address6, err = address(n, r, c.ID, r.Subnet6, r.Range6, a.Address6); err != nil {
			return nil, err
		}
	}
	l.MAC = a.MAC
	if l.MAC == "" {
		l.MAC = ipam.MAC(l.Address)
	}
	if slices.ContainsFunc(n.LeasesIn(r.ID), func(o state.Lease) bool { return o.MAC == l.MAC }) {
		return nil, wordedf(ErrConflict, "MAC address %s is already in use on network %s", l.MAC, r.Name)
	}
	n.Leases = append(n.Leases, l)
	return &n.Leases[len(n.Leases)-1], nil
}

// address is the asked one, or the first that is free. Pure.
func address(n *state.Networks, r *state.NetworkRecord, vm string, subnet, within netip.Prefix, asked netip.Addr) (netip.Addr, error) {
	if asked.IsValid() {
		if n.Taken(r, asked, vm) {
			return asked, wordedf(ErrConflict, "Address already in use: %s on network %s", asked, r.Name)
		}
		return asked, nil
	}
	taken := map[netip.Addr]bool{}
	for _, l := range n.LeasesIn(r.ID) {
		taken[l.Address], taken[l.Address6] = true, true
	}
	a, err := ipam.Free(subnet, within, func(a netip.Addr) bool { return taken[a] || r.Keeps(a) })
	if err != nil {
		family := "IPv4"
		if subnet.Addr().Is6() {
			family = "IPv6"
		}
		return a, wordedf(ErrConflict, "no available %s addresses on this network's address pools: %s (%s)", family, r.Name, r.ID)
	}
	return a, nil
}

// chosen reports whether a user chose an address of a container. Pure.
func chosen(c *state.Config) bool {
	return slices.ContainsFunc(attachments(c), func(a state.Attachment) bool { return a.Address.IsValid() || a.Address6.IsValid() })
}

// errNotConnected is docker's answer to the end of what never was.
func errNotConnected(vm state.VM, r string) error {
	return wordedf(ErrInvalid, "container %s is not connected to the network %s", vm.ID, r)
}
