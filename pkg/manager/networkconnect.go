package manager

import (
	"context"
	"errors"
	"slices"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
)

// ConnectNetwork puts a container into one more network: one that runs at once, any
// from its next start on.
func (m *Manager) ConnectNetwork(ctx context.Context, container string, a NetworkAttachment) error {
	vm, err := m.resolve(container)
	if err != nil {
		return err
	}
	if err := m.refuseSharing(vm); err != nil {
		return err
	}
	if a, err = m.attachment(a); err != nil {
		return err
	}
	add := func(c *state.Config) error {
		c.Networks = slices.Clone(attachments(c))
		if slices.ContainsFunc(c.Networks, sameNetwork(a)) {
			return wordedf(ErrConflict, "endpoint with name %s already exists in network %s", vm.Name, a.Name)
		}
		return addAttachment(c, a)
	}
	return m.changeNetworks(ctx, vm, networkChange{
		change: add,
		stopped: func(c *state.Config) error {
			if len(c.Networks) == 1 {
				c.HostConfig.NetworkMode = a.Name // it was in none
			}
			if !chosen(c) {
				return nil
			}
			_, err := m.takeLeases(c, nil)
			return err
		},
		running: func(c *state.Config) error { return m.connectRunning(ctx, vm, c, a) },
		told:    func() { m.tellConnected(events.ActionConnect, vm, a) },
	})
}

// DisconnectNetwork takes a container out of a network, and frees its address there.
// With force, a container that is no more is no error.
func (m *Manager) DisconnectNetwork(ctx context.Context, container, ref string, force bool) error {
	w, err := m.InspectNetwork(ctx, ref)
	if err != nil {
		return err
	}
	vm, err := m.resolve(container)
	if errors.Is(err, ErrNotFound) && force {
		return m.state.ChangeNetworks(func(*state.Networks) error { return nil }) // frees what is left
	}
	if err != nil {
		return err
	}
	left := state.Attachment{Network: w.ID, Name: w.Name}
	if w.Name == NetworkUser {
		left.Network = NetworkUser
	}
	return m.changeNetworks(ctx, vm, networkChange{
		change:  func(c *state.Config) error { return m.leaves(vm, c, left) },
		stopped: func(*state.Config) error { return m.freeLease(vm, left) },
		running: func(c *state.Config) error {
			if err := m.becomeRunning(ctx, vm, c, nil); err != nil {
				return err
			}
			return m.freeLease(vm, left)
		},
		told: func() { m.tellConnected(events.ActionDisconnect, vm, left) },
	})
}

// leaves takes a container's description out of a network. Of a connect that was killed
// only the address is left, and the VM may be in the network: that can be left, too.
func (m *Manager) leaves(vm state.VM, c *state.Config, left state.Attachment) error {
	rest := slices.DeleteFunc(slices.Clone(attachments(c)), sameNetwork(left))
	n, err := m.state.Networks()
	if err != nil {
		return err
	}
	if len(rest) == len(attachments(c)) && n.Lease(left.Network, vm.ID) == nil {
		return errNotConnected(vm, left.Name)
	}
	c.Networks = append([]state.Attachment{}, rest...)
	return nil
}

// freeLease frees the address of a container in a network.
func (m *Manager) freeLease(vm state.VM, in state.Attachment) error {
	return m.state.ChangeNetworks(func(n *state.Networks) error {
		n.Free(func(l state.Lease) bool { return l.VM == vm.ID && l.Network == in.Network })
		return nil
	})
}

// networkChange is a change of the networks of a container.
type networkChange struct {
	// change is that of its description, then stopped, or running for one that runs,
	// whose supervisor is asked. Only what they agree to is written, and with that the
	// lock is of no use any more, which is on the file that is replaced: an address that
	// is freed later could be one that the next change has taken.
	change, stopped, running func(*state.Config) error
	// told tells of it, where no supervisor does.
	told func()
}

func (m *Manager) changeNetworks(ctx context.Context, vm state.VM, change networkChange) error {
	config, err := m.state.LockConfig(vm.ID)
	if err != nil {
		return err
	}
	defer config.Unlock()
	alive, err := m.lock(ctx, vm)
	runs := errors.Is(err, state.ErrLocked)
	if err != nil && !runs {
		return err
	}
	if !runs {
		defer alive.Unlock()
	}
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return err
	}
	if err := change.change(c); err != nil {
		return err
	}
	if runs {
		if err := change.running(c); err != nil {
			return err
		}
		return m.state.WriteConfig(c)
	}
	if err := change.stopped(c); err != nil {
		return err
	}
	if err := m.state.WriteConfig(c); err != nil {
		return err
	}
	change.told()
	return nil
}

// tellConnected tells of a container that has come into a network, or left it. Of
// networks without a record nobody tells.
func (m *Manager) tellConnected(a events.Action, vm state.VM, to state.Attachment) {
	if !recorded(to) {
		return
	}
	r := state.NetworkRecord{ID: to.Network, Name: to.Name, Driver: DriverBridge}
	if n, err := m.state.Networks(); err == nil {
		if found, err := n.Find(to.Network); err == nil {
			r.Driver = found.Driver
		}
	}
	m.tellNetwork(a, r, "container", vm.ID)
}
