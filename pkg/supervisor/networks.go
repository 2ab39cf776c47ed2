package supervisor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// Networks are what a VM is in from now on: the part of a Plan that is about networks,
// each of its lists in the same order. What the VM has of one that it is in already
// stays as it is.
type Networks struct {
	NICs  []network.NIC `json:"nics"`
	VM    []vmm.NIC     `json:"vm"`    // of the next VM
	Guest []api.NIC     `json:"guest"` // as the guest is told
	Hosts []api.Host    `json:"hosts,omitempty"`
	DNS   api.DNS       `json:"dns"`
}

// become leaves the networks that are not in w, and comes into those that are new: at
// once, and in the VMs that the restart policy starts. A network that cannot be had
// leaves the VM in those that it had.
func (s *supervisor) become(w *Networks) error {
	if w == nil || len(w.VM) != len(w.NICs) || len(w.Guest) != len(w.NICs) || len(w.NICs) > api.MaxNICs {
		return errors.New("networks that do not fit together")
	}
	s.netMu.Lock()
	defer s.netMu.Unlock()
	if done, err := s.planWhileResting(w); done || err != nil {
		return err
	}
	for i, n := range w.NICs {
		if s.find(n) < 0 {
			if err := s.connect(n, w.Guest[i], w); err != nil {
				return err
			}
		}
	}
	if err := s.leaveAllBut(w); err != nil {
		return err
	}
	for _, p := range w.NICs {
		s.renew(s.nics[s.find(p)], p)
	}
	s.inNetworks()
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	s.planNetworks(w)
	return nil
}

// leaveAllBut leaves the networks that are not in w.
func (s *supervisor) leaveAllBut(w *Networks) error {
	var gone []*nic
	for _, n := range s.nics {
		if !slices.ContainsFunc(w.NICs, n.isIn) {
			gone = append(gone, n)
		}
	}
	for _, n := range gone {
		if err := s.disconnect(n); err != nil {
			return fmt.Errorf("disconnect from network %s: %w", n.plan.Name, err)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	// What counts is done. A guest that does not do its part has a device that leads
	// nowhere.
	if err := s.tellGuest(w); err != nil {
		s.log.Error("tell the guest which networks it has left", "err", err)
	}
	return nil
}

// planWhileResting is all that there is to be done while no VM runs.
func (s *supervisor) planWhileResting(w *Networks) (done bool, err error) {
	resting := s.resting()
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	switch {
	case resting && s.handed, !resting && !closed(s.running):
		return false, errors.New("the container is still starting")
	case resting:
		s.planNetworks(w)
		return true, nil
	case closed(s.ended):
		return false, errEnded
	}
	return false, nil
}

// planNetworks is for the VMs to come. The caller holds statusMu.
func (s *supervisor) planNetworks(w *Networks) {
	s.plan.NICs, s.plan.VM.NICs, s.plan.Setup.NICs = w.NICs, w.VM, w.Guest
	s.plan.Start.Hosts, s.plan.Start.DNS = w.Hosts, w.DNS
}

// isIn reports whether the NIC is in the network of another.
func (n *nic) isIn(o network.NIC) bool {
	return n.plan.Name == o.Name && n.plan.Network() == o.Network()
}

// find is the index of the NIC in the network of another, -1 for none.
func (s *supervisor) find(o network.NIC) int {
	return slices.IndexFunc(s.nics, func(n *nic) bool { return n.isIn(o) })
}

// lateShare is which share of the process's descriptors a network has that the VM was not
// booted in: those that it was have shared all among them.
const lateShare = 2 * api.MaxNICs

// undo is a stack of what is to be undone.
type undo []func()

func (u *undo) add(f func()) { *u = append(*u, f) }

func (u undo) run() {
	for _, f := range slices.Backward(u) {
		f()
	}
}

// connect puts the VM into one more network, with the names and routes of w.
func (s *supervisor) connect(p network.NIC, guest api.NIC, w *Networks) (err error) {
	var back undo
	defer func() {
		if err != nil {
			err = fmt.Errorf("connect to network %s: %w", p.Name, err)
			back.run()
		}
	}()
	n, status, err := s.startNIC(s.withDevice(p), lateShare)
	if err != nil {
		return err
	}
	back.add(func() { s.giveUp(n) })
	// On disk before anything is on the host, as at the start.
	if err := s.recordNetwork(status); err != nil {
		return err
	}
	failpoint.Here(failpoint.ConnectRecorded)
	if err := s.wire(n, guest); err != nil {
		return err
	}
	failpoint.Here(failpoint.ConnectWired)
	before := s.nics
	back.add(func() { s.areIn(before) })
	if err := s.areIn(append(slices.Clone(before), n)); err != nil {
		return err
	}
	if err := s.tellGuest(w); err != nil {
		return err
	}
	failpoint.Here(failpoint.ConnectTold)
	s.tellNetwork(events.ActionConnect, n.plan)
	n.told = true
	return nil
}

// withDevice is a plan with a device that none of the VM's has the name of.
func (s *supervisor) withDevice(p network.NIC) network.NIC {
	if p.Bridge == nil {
		return p
	}
	b := *p.Bridge
	for i := 0; ; i++ {
		b.Endpoint.Device = network.DeviceName(s.plan.ID, i)
		taken := func(n *nic) bool { return n.plan.Device() == b.Endpoint.Device }
		if !slices.ContainsFunc(s.nics, taken) && !slices.ContainsFunc(s.idle, taken) {
			break
		}
	}
	p.Bridge = &b
	return p
}

// recordNetwork records one more network.
func (s *supervisor) recordNetwork(n state.Network) error {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	s.status.Networks = append(slices.Clone(s.status.Networks), n)
	return s.record()
}

// areIn makes some NICs those that the VM has, for its names and its peers.
func (s *supervisor) areIn(nics []*nic) error {
	s.nics = nics
	s.inNetworks()
	return s.joinPeers()
}

// unrecord takes a network out of the record.
func (s *supervisor) unrecord(n *nic) {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	s.status.Networks = slices.DeleteFunc(slices.Clone(s.status.Networks), n.has)
	if err := s.record(); err != nil {
		s.log.Error("record that the VM has left a network", "network", n.plan.Name, "err", err)
	}
}

// has reports whether a record is of the NIC.
func (n *nic) has(o state.Network) bool { return o.Name == n.plan.Name && o.Device == n.plan.Device() }

// giveUp takes back what has begun of a network. What cannot be is for the end of the VM.
func (s *supervisor) giveUp(n *nic) {
	if err := n.close(); err != nil {
		s.log.Error("leave network", "network", n.plan.Name, "err", err)
		s.idle = append(s.idle, n)
		return
	}
	s.unrecord(n)
}

// disconnect takes the VM out of a network. Its guest is told later. A network that
// cannot be left is for the next try, or for the end of the VM.
func (s *supervisor) disconnect(n *nic) error {
	s.recordLeaving(n.has)
	failpoint.Here(failpoint.DisconnectRecorded)
	if n.bridged() && n.wire == nil {
		if err := n.joined.Withdraw(); err != nil {
			return err
		}
		s.idle = append(s.idle, n)
	} else if err := n.close(); err != nil {
		return err
	}
	s.unrecord(n)
	failpoint.Here(failpoint.DisconnectLeft)
	if n.told {
		s.tellNetwork(events.ActionDisconnect, n.plan)
		n.told = false
	}
	return s.areIn(slices.DeleteFunc(slices.Clone(s.nics), func(o *nic) bool { return o == n }))
}

// renew makes of a NIC what its plan says now: the way to others may be another one.
func (s *supervisor) renew(n *nic, p network.NIC) {
	n.plan = n.plan.Renewed(p)
	if len(p.Ports()) == 0 || len(n.published()) > 0 {
		return
	}
	if err := s.publish(n, p.Ports()); err != nil {
		s.log.Error("publish ports by another network", "network", p.Name, "err", err)
	}
}

func (n *nic) published() []network.Port {
	if n.user != nil {
		return n.user.Published()
	}
	return n.joined.Published()
}

func (s *supervisor) publish(n *nic, ports []network.Port) error {
	record := func() error {
		s.statusMu.Lock()
		defer s.statusMu.Unlock()
		s.status.Networks = slices.Clone(s.status.Networks)
		if i := slices.IndexFunc(s.status.Networks, n.has); i >= 0 {
			s.status.Networks[i].Ports = bindings(n.published())
		}
		return s.record()
	}
	if n.user == nil {
		return n.joined.Publish(s.booting, ports, s.log, record)
	}
	if err := n.user.Publish(ports); err != nil {
		return err
	}
	return record()
}

// tellGuest tells the guest which networks it is in.
func (s *supervisor) tellGuest(w *Networks) error {
	ctx, cancel := s.callCtx()
	defer cancel()
	return s.agent.Networks(ctx, api.NetworksRequest{ID: s.plan.Start.ID, NICs: w.Guest, Hosts: w.Hosts, DNS: w.DNS})
}
