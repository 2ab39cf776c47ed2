package supervisor

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

// A VM finds those who run in its networks by their names. Nobody keeps a list of
// them: each question is answered from the records, as they are at that moment.

// names are what the VM asks for.
func (s *supervisor) names() network.Names {
	return network.Names{
		Host:    s.hostGateway,
		Lookup:  func(name string) ([]netip.Addr, bool) { return s.answers().lookup(name) },
		Reverse: func(a netip.Addr) []string { return s.answers().reverse(a) },
		Asks:    s.asks,
	}
}

// hostGateway is invalid for a VM that has left all networks.
func (s *supervisor) hostGateway() netip.Addr {
	if all := *s.present.Load(); len(all) > 0 {
		return network.HostGateway(all)
	}
	return netip.Addr{}
}

func (s *supervisor) asks() (forwarders []netip.Addr, outside bool) {
	if all := *s.present.Load(); len(all) > 0 {
		return all[0].Asks()
	}
	return nil, false
}

// findPeer is a network.FindPeer.
func (s *supervisor) findPeer(network string, addr netip.Addr) (socket string, ok bool) {
	return s.answers().peer(network, addr)
}

// answers knows the VM's own networks, as they are now. In docker's default network there are no
// names.
func (s *supervisor) answers() answers {
	a := answers{store: s.store, vm: s.plan.ID, own: map[string]string{}}
	for _, n := range *s.present.Load() {
		if n.Network() != "" && n.Name != state.ModeBridge {
			a.own[n.Network()] = n.Name
		}
	}
	return a
}

// answers looks for names and VMs in a VM's own networks.
type answers struct {
	store *state.Store
	vm    string            // id of the VM itself
	own   map[string]string // names by ids of networks
}

// lookup tells the addresses of a container by its name, its short id, its host
// name or an alias, with or without the name of the network behind it.
func (a answers) lookup(name string) (addrs []netip.Addr, known bool) {
	leases := a.leases()
	if len(leases) == 0 {
		return nil, false
	}
	containers := a.containers()
	for _, l := range leases {
		is := func(n string) bool {
			return strings.EqualFold(n, name) || strings.EqualFold(n+"."+a.own[l.Network], name)
		}
		if !slices.ContainsFunc(names(l, containers), is) || !a.runs(l.VM) {
			continue
		}
		for _, addr := range []netip.Addr{l.Address, l.Address6} {
			if addr.IsValid() {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs, len(addrs) > 0
}

// reverse tells the names of the container that has an address, in docker's form.
func (a answers) reverse(addr netip.Addr) []string {
	for _, l := range a.leases() {
		if (l.Address == addr || l.Address6 == addr) && a.runs(l.VM) {
			return []string{names(l, a.containers())[0] + "." + a.own[l.Network]}
		}
	}
	return nil
}

// peer is the socket of the VM that has an address in a network, for others there.
func (a answers) peer(network string, addr netip.Addr) (socket string, ok bool) {
	for _, l := range a.leases() {
		if l.Network == network && (l.Address == addr || l.Address6 == addr) && l.VM != a.vm && a.runs(l.VM) {
			return a.store.Paths(l.VM).Peer(), true
		}
	}
	return "", false
}

// leases are those in the VM's own networks.
func (a answers) leases() []state.Lease {
	if len(a.own) == 0 {
		return nil
	}
	n, err := a.store.Networks()
	if err != nil {
		return nil // a name that cannot be looked up is not known
	}
	return slices.DeleteFunc(n.Leases, func(l state.Lease) bool { _, ok := a.own[l.Network]; return !ok })
}

// containers are the names of all containers by their ids.
func (a answers) containers() map[string]string {
	all := map[string]string{}
	vms, err := a.store.List()
	if err != nil {
		return all
	}
	for _, vm := range vms {
		all[vm.ID] = vm.Name
	}
	return all
}

// names are all names of a container in one network, its own first. Pure.
func names(l state.Lease, containers map[string]string) []string {
	short := l.VM[:12]
	return append([]string{cmp.Or(containers[l.VM], short), short}, l.Names...)
}

// runs reports whether somebody holds a container's lock. While its files are only
// served, nobody is at its address: that is as good as an answer that is too late.
func (a answers) runs(vm string) bool {
	held, err := a.store.Running(vm)
	return err == nil && held
}
