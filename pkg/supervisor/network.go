package supervisor

import (
	"fmt"

	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// startNetwork takes the published ports. What cannot be had is known before
// anything is booted.
func (s *supervisor) startNetwork() error {
	p := s.plan.Network
	if p == nil {
		return nil
	}
	var err error
	if s.network, err = p.Start(s.log); err != nil {
		return err
	}
	s.status.Network = &state.Network{
		Mode: "user", MAC: p.MAC, Address: p.Guest.String(), Gateway: p.Gateway.String(), Ports: bindings(s.network.Published()),
	}
	return nil
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

// joinNetwork connects the VM's NIC with its network.
func (s *supervisor) joinNetwork() error {
	if s.network == nil {
		return nil
	}
	l, ok := s.machine.(vmm.Linker)
	if !ok {
		return fmt.Errorf("%s has no network: use --network none", s.driver.Name())
	}
	return s.network.Attach(l.Link(0))
}
