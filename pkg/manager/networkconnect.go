package manager

import (
	"context"
	"errors"
	"slices"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
)

// noHotPlug is why the networks of a VM are those that it was started with.
const noHotPlug = "its microVM keeps the network devices that it was started with: stop it first"

// ConnectNetwork puts a container that does not run into one more network, from
// its next start on.
func (m *Manager) ConnectNetwork(ctx context.Context, container string, a NetworkAttachment) error {
	vm, err := m.resolve(container)
	if err != nil {
		return err
	}
	if a, err = m.attachment(a); err != nil {
		return err
	}
	err = m.changeStopped(ctx, vm, "connect", func(c *state.Config) error {
		c.Networks = slices.Clone(attachments(c))
		if slices.ContainsFunc(c.Networks, sameNetwork(a)) {
			return wordedf(ErrConflict, "endpoint with name %s already exists in network %s", vm.Name, a.Name)
		}
		if len(c.Networks) == 0 {
			c.HostConfig.NetworkMode = a.Name // it was in none
		}
		if err := addAttachment(c, a); err != nil {
			return err
		}
		if !chosen(c) {
			return nil
		}
		_, err := m.takeLeases(c, nil)
		return err
	})
	if err == nil {
		m.tellConnected(events.ActionConnect, vm, a)
	}
	return err
}

// DisconnectNetwork takes a container that does not run out of a network, and
// frees its address there. With force, a container that is no more is no error.
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
	err = m.changeStopped(ctx, vm, "disconnect", func(c *state.Config) error {
		rest := slices.DeleteFunc(slices.Clone(attachments(c)), sameNetwork(left))
		if len(rest) == len(attachments(c)) {
			return errNotConnected(vm, w.Name)
		}
		c.Networks = append([]state.Attachment{}, rest...)
		return nil
	})
	if err != nil {
		return err
	}
	m.tellConnected(events.ActionDisconnect, vm, left)
	return m.state.ChangeNetworks(func(n *state.Networks) error {
		n.Free(func(l state.Lease) bool { return l.VM == vm.ID && l.Network == left.Network })
		return nil
	})
}

// changeStopped changes the description of a container that does not run.
func (m *Manager) changeStopped(ctx context.Context, vm state.VM, verb string, change func(*state.Config) error) error {
	config, err := m.state.LockConfig(vm.ID)
	if err != nil {
		return err
	}
	defer config.Unlock()
	alive, err := m.lock(ctx, vm)
	if errors.Is(err, state.ErrLocked) {
		return wordedf(ErrConflict, "cannot %s container %s: %s", verb, vm.Name, noHotPlug)
	}
	if err != nil {
		return err
	}
	defer alive.Unlock()
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return err
	}
	if err := change(c); err != nil {
		return err
	}
	return m.state.WriteConfig(c)
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
