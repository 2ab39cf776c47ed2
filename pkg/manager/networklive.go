package manager

import (
	"context"
	"net/netip"
	"slices"

	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/network/ipam"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// connectRunning puts a container that runs into a network that its description has by
// now. What fails leaves nothing behind.
func (m *Manager) connectRunning(ctx context.Context, vm state.VM, c *state.Config, a state.Attachment) error {
	if len(c.Networks) == 1 && c.HostConfig.NetworkMode == NetworkNone {
		return errNoNetworkMode()
	}
	only := *c
	only.Networks = []state.Attachment{a}
	err := m.becomeRunning(ctx, vm, c, func(n *state.Networks) error { return m.prepareBridges(n, &only) })
	if err != nil {
		m.releaseDefault(&only)
		if free := m.freeLease(vm, a); free != nil {
			m.log.Error("free the address of a container that is not connected", "container", vm.ID, "err", free)
		}
	}
	return err
}

// becomeRunning has a container's supervisor put it into the networks of its
// description, whose addresses are taken then. An address that it has elsewhere is kept
// until the supervisor has left. prepare may be nil.
func (m *Manager) becomeRunning(ctx context.Context, vm state.VM, c *state.Config, prepare func(*state.Networks) error) error {
	w, err := m.runningNetworks(vm, c, prepare)
	if err != nil {
		return err
	}
	// Whoever does not wait for the answer does not know who has the address.
	answer, err := m.ask(context.WithoutCancel(ctx), vm, supervisor.Command{Op: supervisor.OpNetworks, Networks: w})
	if err == nil && answer.Error != "" {
		err = wordedf(ErrConflict, "change networks of container %s: %s", vm.Name, answer.Error)
	}
	return err
}

// runningNetworks plans the networks of a container that runs.
func (m *Manager) runningNetworks(vm state.VM, c *state.Config, prepare func(*state.Networks) error) (*supervisor.Networks, error) {
	st, err := m.state.ReadStatus(vm.ID)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, notRunning(vm)
	}
	members, err := m.changeLeases(c, func(n *state.Networks, _ *state.Config) error {
		if prepare == nil {
			return nil
		}
		return prepare(n)
	}, leaseMore)
	if err != nil {
		return nil, err
	}
	w := &supervisor.Networks{NICs: m.planNICs(c, members, m.hostNetworks(), network.UplinkMTU())}
	for _, n := range w.NICs {
		keepLink(n, st.Networks)
	}
	if err := addPorts(w.NICs, portBindings(c)); err != nil {
		return nil, err
	}
	w.VM, w.Guest = nics(w.NICs)
	w.DNS = dns(c.HostConfig, w.NICs, network.HostResolver())
	w.Hosts, err = hosts(c, w.NICs)
	return w, err
}

// keepLink gives a link of the guest's own the addresses that it has: those of a new
// one may be others. Pure.
func keepLink(n network.NIC, has []state.Network) {
	if n.Network() != "" {
		return
	}
	i := slices.IndexFunc(has, func(o state.Network) bool { return o.Mode == state.ModeUser && o.ID == "" })
	if i < 0 {
		return
	}
	guest, err := netip.ParsePrefix(has[i].Address)
	gateway, other := netip.ParseAddr(has[i].Gateway)
	if err != nil || other != nil {
		return
	}
	n.User.MAC, n.User.Guest, n.User.Gateway, n.User.GatewayMAC = has[i].MAC, guest, gateway, ipam.MAC(gateway)
}

// errNoNetworkMode is docker's answer for a container that was to have no network.
func errNoNetworkMode() error {
	return wordedf(ErrInvalid, "container cannot be connected to multiple networks with one of the networks in private (%s) mode", NetworkNone)
}
