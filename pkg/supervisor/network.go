package supervisor

import (
	"fmt"
	"slices"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/network/peer"
	"github.com/micropod/micropod/pkg/network/usernet"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// nic is one NIC of the VM on the host's side: either of user and joined is set.
type nic struct {
	plan   network.NIC
	user   *usernet.Network
	joined *network.Joined
	wire   *wired // nil for a device of the VMM
	told   bool   // that it is in its network
}

func (n *nic) bridged() bool { return n.joined != nil }

// startNetwork takes what the VM's NICs need, the published ports first: what
// cannot be had is known before anything is booted.
func (s *supervisor) startNetwork() error {
	for _, p := range s.plan.NICs {
		n, status, err := s.startNIC(p, len(s.plan.NICs))
		if err != nil {
			return err
		}
		s.nics = append(s.nics, n)
		s.status.Networks = append(s.status.Networks, status)
	}
	s.inNetworks()
	// On disk before anything is on the host: who finds us dead knows what to look
	// for.
	if err := s.record(); err != nil {
		return err
	}
	for _, n := range s.nics {
		if n.user != nil {
			s.tellNetwork(events.ActionConnect, n.plan)
			n.told = true
		}
	}
	if slices.ContainsFunc(s.nics, (*nic).bridged) {
		s.joined = make(chan struct{})
		go s.join()
	}
	return nil
}

// startNIC takes the sockets of one NIC, one of share in user mode, and tells what is
// to be recorded of it.
func (s *supervisor) startNIC(n network.NIC, share int) (started *nic, status state.Network, err error) {
	status = state.Network{
		Mode: state.ModeUser, ID: n.Network(), Name: n.Name, MAC: n.MAC(), Address: n.Guest().String(), Gateway: n.Gateway().String(),
		MTU: n.MTU(), Internal: n.Internal(),
	}
	if n.Guest6().IsValid() {
		status.Address6, status.Gateway6 = n.Guest6().String(), n.Gateway6().String()
	}
	started = &nic{plan: n}
	if n.User != nil {
		if started.user, err = n.User.Start(s.names(), s.findPeer, share, s.log); err != nil {
			return nil, status, err
		}
		status.Ports = bindings(started.user.Published())
		return started, status, nil
	}
	if started.joined, err = n.Bridge.Start(s.names(), s.log); err != nil {
		return nil, status, err
	}
	describe(&status, started.joined)
	return started, status, nil
}

// inNetworks makes the networks that the VM is in known to those who look for names.
func (s *supervisor) inNetworks() {
	var all []network.NIC
	for _, n := range s.nics {
		all = append(all, n.plan)
	}
	s.present.Store(&all)
}

// describe records what a VM has of a bridge network.
func describe(n *state.Network, j *network.Joined) {
	e := j.Endpoint()
	n.Mode, n.Device, n.NameServer = state.ModeBridge, e.Device, e.NameServer
	n.Ports = bindings(j.Published())
}

// bindings are published ports as the record has them.
func bindings(ports []network.Port) []state.PortBinding {
	var out []state.PortBinding
	for _, p := range ports {
		b := state.PortBinding{Port: fmt.Sprintf("%d/%s", p.Guest, p.Proto), HostPort: p.Host.Port()}
		if !p.Any {
			b.HostIP = p.Host.Addr().String()
		}
		out = append(out, b)
	}
	return out
}

// attachNetwork connects the VM's NICs of user mode with their networks.
func (s *supervisor) attachNetwork() error {
	for i, n := range s.nics {
		if n.bridged() {
			continue
		}
		l, ok := s.machine.(vmm.Linker)
		if !ok {
			return fmt.Errorf("%s has no network: use --network none", s.driver.Name())
		}
		if err := n.user.Attach(l.Link(i)); err != nil {
			return err
		}
	}
	return s.joinPeers()
}

// joinPeers lets the others of its networks of driver user reach the guest, and those
// of networks that it has left no more.
func (s *supervisor) joinPeers() error {
	var members []peer.Member
	for _, n := range s.nics {
		if p := n.plan.User; p != nil && p.Network != "" {
			members = append(members, peer.Member{
				Network: p.Network, Address: p.Guest, Gateway: p.Gateway, Address6: p.Guest6, Gateway6: p.Gateway6, Guest: n.user.FromPeers(),
			})
		}
	}
	if s.peers != nil {
		s.peers.Become(members)
		return nil
	}
	if len(members) == 0 {
		return nil
	}
	var err error
	if s.peers, err = peer.Listen(s.short().Peer(), peer.OwnLimits(), s.log); err != nil {
		return err
	}
	return s.peers.Serve(members)
}

// recordLeaving tells those who make networks again from the records to leave out those
// that leaves is true of: the end of it is on disk only later.
func (s *supervisor) recordLeaving(leaves func(state.Network) bool) {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	joined := false
	// Others may be reading the list before.
	s.status.Networks = slices.Clone(s.status.Networks)
	for i := range s.status.Networks {
		n := &s.status.Networks[i]
		n.Leaving = n.Leaving || n.Mode == state.ModeBridge && leaves(*n)
		joined = joined || n.Leaving
	}
	if !joined {
		return
	}
	if err := s.record(); err != nil {
		s.log.Error("record that the VM leaves its networks", "err", err)
	}
}

// leaveNetwork frees what the NICs have. The VM has ended.
func (s *supervisor) leaveNetwork() {
	s.netMu.Lock()
	defer s.netMu.Unlock()
	s.recordLeaving(func(state.Network) bool { return true })
	if s.peers != nil {
		s.peers.Close()
		s.peers = nil
	}
	for _, n := range append(s.nics, s.idle...) {
		if err := n.close(); err != nil {
			s.log.Error("leave network", "network", n.plan.Name, "err", err)
		}
		if n.told {
			s.tellNetwork(events.ActionDisconnect, n.plan)
		}
	}
	s.nics, s.idle = nil, nil
}

// close frees all that the NIC has. Idempotent.
func (n *nic) close() error {
	n.wire.close()
	if n.user != nil {
		n.user.Close()
		return nil
	}
	return n.joined.Close()
}

// tellNetwork tells that the container has come into a network, or left it. Of a
// link of its own nobody tells.
func (s *supervisor) tellNetwork(a events.Action, n network.NIC) {
	if n.Network() == "" {
		return
	}
	driver := state.ModeBridge
	if n.User != nil {
		driver = state.ModeUser
	}
	to := events.Subject{ID: n.Network(), Name: n.Name}
	s.tell(events.Network(a, to, "type", driver, "container", s.plan.ID))
}
