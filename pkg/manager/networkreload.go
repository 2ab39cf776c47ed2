package manager

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/ledger"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/state"
)

// bridgeLock is locked while what bridge networks have on the host is changed: root's,
// of all root directories, and gone when the host boots, as those networks are.
const bridgeLock = "/run/micropod/bridge.lock"

// bridgeHost is what this root has on the host.
func (m *Manager) bridgeHost() bridge.Host {
	return bridge.Host{Table: tableName(m.state.Root()), Lock: bridgeLock}
}

// leaveNetworks takes a VM whose supervisor was lost out of its networks. What
// cannot be removed now must not keep its container for ever: a check finds it.
func (m *Manager) leaveNetworks(vm string, networks []state.Network) {
	for _, n := range networks {
		if !inBridge(n) {
			continue
		}
		e, err := recordedEndpoint(vm, n)
		if err == nil {
			err = m.bridgeHost().Leave(e)
		}
		if err != nil {
			m.log.Error("take a VM out of its network", "container", vm, "network", n.Name, "err", err)
		}
	}
}

// tellLeft tells that a VM has left the networks that it was in.
func (m *Manager) tellLeft(vm state.VM, networks []state.Network) {
	for _, n := range networks {
		if n.ID != "" {
			m.tellConnected(events.ActionDisconnect, vm, state.Attachment{Network: n.ID, Name: n.Name})
		}
	}
}

// ReloadNetworks makes again what bridge networks have on the host, from the
// records, and returns the ids of the containers that are in one.
func (m *Manager) ReloadNetworks(ctx context.Context) ([]string, error) {
	if _, err := m.Networks(ctx); err != nil { // cleans up after lost supervisors
		return nil, err
	}
	var ids []string
	err := m.bridgeHost().Restore(func() ([]bridge.Endpoint, error) {
		all, err := m.recordedEndpoints(stays)
		for _, e := range all {
			ids = append(ids, e.VM)
		}
		return all, err
	}, m.awaited)
	return slices.Compact(ids), err
}

// mendNetworks is ReloadNetworks, if a firewall was flushed under the containers
// that run, or nothing. What cannot be mended stays closed.
func (m *Manager) mendNetworks() {
	recorded := func(of func(state.Network) bool) func() ([]bridge.Endpoint, error) {
		return func() ([]bridge.Endpoint, error) { return m.recordedEndpoints(of) }
	}
	all, err := m.recordedEndpoints(inBridge)
	intact := len(all) == 0 // there is nothing to mend
	if err == nil && !intact {
		intact, err = m.bridgeHost().Intact(recorded(inBridge), m.awaited)
	}
	if err == nil && !intact {
		err = m.bridgeHost().Restore(recorded(stays), m.awaited)
	}
	if err != nil {
		m.log.Error("look after bridge networks", "err", err)
	}
}

// inBridge is true of places in bridge networks. Pure.
func inBridge(n state.Network) bool { return n.Mode == state.ModeBridge }

// stays is inBridge, but for those that a supervisor is about to take away, or has
// already: what is restored then would stay. Pure.
func stays(n state.Network) bool { return inBridge(n) && !n.Leaving }

// recordedEndpoints are the places of all VMs that of is true of: a supervisor
// records its own before it joins. Supervisors that were lost are left out, and
// records that are damaged: whoever cannot read the others now knows nothing, as a
// VM that is left out is taken off its network.
func (m *Manager) recordedEndpoints(of func(state.Network) bool) ([]bridge.Endpoint, error) {
	vms, err := m.state.List()
	if err != nil {
		return nil, err
	}
	var all []bridge.Endpoint
	for _, vm := range vms {
		st, err := m.state.ReadStatus(vm.ID)
		if err != nil && !errors.Is(err, state.ErrDamaged) && !errors.Is(err, state.ErrNewer) {
			return nil, err
		}
		if err != nil || st == nil || len(st.Networks) == 0 || !m.inNetwork(vm) {
			continue
		}
		all = append(all, endpointsOf(vm.ID, st.Networks, of)...)
	}
	return all, nil
}

// endpointsOf are a VM's places that of is true of. Pure.
func endpointsOf(vm string, networks []state.Network, of func(state.Network) bool) []bridge.Endpoint {
	var all []bridge.Endpoint
	for _, n := range networks {
		if !of(n) {
			continue
		}
		if e, err := recordedEndpoint(vm, n); err == nil {
			all = append(all, e)
		}
	}
	return all
}

// checkBridges looks for what is on the host of VMs that do not run.
func (m *Manager) checkBridges() ([]ledger.Finding, error) {
	if _, err := os.Stat(bridgeLock); err != nil || os.Geteuid() != 0 {
		return nil, nil // nobody was ever in such a network, or nobody can have been
	}
	living := func(id string) bool {
		running, err := m.state.Running(id)
		return running || err != nil
	}
	left, err := m.bridgeHost().Leftovers(living, m.awaited)
	var found []ledger.Finding
	for _, l := range left {
		found = append(found, ledger.Finding{
			Kind: ledger.Network, Subject: l.String(), Problem: "no container that runs has it", Remedy: "remove it",
			Repair: func(context.Context) error { return m.bridgeHost().Remove(living, m.awaited) },
		})
	}
	return found, err
}

// recordedEndpoint is the place of a VM in a bridge network, as its supervisor
// recorded it. Pure.
func recordedEndpoint(vm string, n state.Network) (bridge.Endpoint, error) {
	e := bridge.Endpoint{
		Network: bridge.Network{ID: n.ID, Internal: n.Internal, MTU: n.MTU},
		VM:      vm, Device: n.Device, MAC: n.MAC, NameServer: n.NameServer,
	}
	var err error
	if e.Address, err = netip.ParsePrefix(n.Address); err != nil {
		return e, err
	}
	if e.Network.Gateway, err = netip.ParseAddr(n.Gateway); err != nil {
		return e, err
	}
	e.Network.Subnet = e.Address.Masked()
	if n.Address6 != "" {
		if e.Address6, err = netip.ParsePrefix(n.Address6); err != nil {
			return e, err
		}
		if e.Network.Gateway6, err = netip.ParseAddr(n.Gateway6); err != nil {
			return e, err
		}
		e.Network.Subnet6 = e.Address6.Masked()
	}
	for _, b := range n.Ports {
		p, err := port(b)
		if err != nil {
			return e, err
		}
		e.Forwards = append(e.Forwards, network.Forwards(p)...)
	}
	return e, nil
}
