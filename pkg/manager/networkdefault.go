package manager

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/network/ipam"
	"github.com/micropod/micropod/pkg/state"
)

// DefaultNetwork is where a container is whose user says nothing of it: docker's
// default network, or NetworkUser with the reason where that cannot be had, or would
// lead nowhere. An error that may pass is no reason, but an error.
func (m *Manager) DefaultNetwork() (name, why string, err error) {
	why, err = m.bridgeHost().Allowed()
	switch {
	case err != nil:
		return "", "", fmt.Errorf("choose the default network: %w (--network %s or %s chooses it)", err, NetworkBridge, NetworkUser)
	case why != "":
		return NetworkUser, why, nil
	}
	return NetworkBridge, "", nil
}

// checkDriver refuses a network of a driver that this user cannot start a container in.
func checkDriver(driver string) error {
	if driver != DriverBridge {
		return nil
	}
	if err := bridge.Permitted(); err != nil {
		return wordedf(ErrInvalid, "%v: without, there are networks of driver %s, and --network %s", err, DriverUser, NetworkUser)
	}
	return nil
}

// prepareBridges makes the bridge networks of a container ready for its start.
func (m *Manager) prepareBridges(n *state.Networks, c *state.Config) error {
	bridged := func(a state.Attachment) bool {
		r, err := n.Find(a.Network)
		return err == nil && r.Driver == DriverBridge
	}
	if slices.ContainsFunc(attachments(c), bridged) {
		m.mendNetworks()
	}
	if !inDefault(c) {
		return nil
	}
	return m.placeDefault(n, c)
}

// placeDefault gives docker's default network another subnet where the host, or
// another root on it, has come to use its own. Docker does so when its daemon starts,
// we when nobody runs in it: who only was in it takes a new address. Until the VM
// of c joins, the subnet is reserved. The caller holds the networks' lock.
func (m *Manager) placeDefault(n *state.Networks, c *state.Config) error {
	r, err := n.Find(NetworkBridge)
	if err != nil {
		return networkError(err, NetworkBridge)
	}
	if slices.ContainsFunc(n.LeasesIn(r.ID), func(l state.Lease) bool { return l.VM != c.ID && m.inNetwork(state.VM{ID: l.VM}) }) {
		return nil
	}
	taken := takenSubnets(n, r.ID)
	if _, err := net.InterfaceByName(bridgeNetwork(*r, 0).Device()); err != nil {
		taken = append(taken, m.hostNetworks()...) // it is not among them itself
	}
	err = placeNetwork(n, r, taken, func() error { return m.bridgeHost().Reserve(bridgeNetwork(*r, 0)) })
	if err != nil {
		return fmt.Errorf("join network %s: %w", r.Name, bridge.Why(err))
	}
	return nil
}

// placeNetwork reserves the subnet of a network, if it overlaps none of taken, else
// the first of the pools that can be had. If all are taken it keeps its own, unless a
// device of the host is in that: a route to more than a subnet is no reason to fail.
func placeNetwork(n *state.Networks, r *state.NetworkRecord, taken []netip.Prefix, reserve func() error) error {
	first := r.Subnet
	for subnet := first; ; {
		if !ipam.Overlaps(subnet, taken) {
			if err := moveNetwork(n, r, subnet); err != nil {
				return err
			}
			if err := reserve(); !errors.Is(err, bridge.ErrInUse) {
				return err
			}
			taken = append(taken, subnet)
		}
		var err error
		if subnet, err = ipam.Subnet(taken); err != nil {
			if err := moveNetwork(n, r, first); err != nil {
				return err
			}
			return reserve()
		}
	}
}

// moveNetwork gives a network another subnet. Who had an address there has none. Pure.
func moveNetwork(n *state.Networks, r *state.NetworkRecord, to netip.Prefix) error {
	if to == r.Subnet {
		return nil
	}
	n.Free(func(l state.Lease) bool { return l.Network == r.ID })
	r.Subnet, r.Gateway = to, netip.Addr{}
	return addGateways(r)
}

// awaited reports whether a bridge is that of docker's default network, and a container
// that is to be in it is on its way up: until it has joined, placeDefault has reserved
// the subnet for it. What cannot be told stays reserved.
func (m *Manager) awaited(device string) bool {
	n, err := m.state.Networks()
	if err != nil {
		return true
	}
	r, err := n.Find(NetworkBridge)
	if err != nil || bridgeNetwork(*r, 0).Device() != device {
		return false
	}
	vms, err := m.state.List()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(vms, func(vm state.VM) bool {
		if !m.inNetwork(vm) {
			return false
		}
		c, err := m.state.ReadConfig(vm.ID)
		return err == nil && inDefault(c)
	})
}

// inDefault reports whether a container is to be in docker's default network. Pure.
func inDefault(c *state.Config) bool {
	return slices.ContainsFunc(attachments(c), func(a state.Attachment) bool { return a.Name == NetworkBridge })
}

// releaseDefault frees what placeDefault has reserved for a VM that did not start.
func (m *Manager) releaseDefault(c *state.Config) {
	if !inDefault(c) || bridge.Permitted() != nil { // who may not has reserved nothing
		return
	}
	n, err := m.state.Networks()
	if err == nil {
		if r, none := n.Find(NetworkBridge); none == nil {
			err = m.bridgeHost().Release(bridgeNetwork(*r, 0))
		}
	}
	if err != nil {
		m.log.Error("free the bridge of a VM that did not start", "container", c.ID, "err", err)
	}
}
