package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// Reserve makes the bridge of a network that nobody is in, so that no other Host
// takes its subnet before an endpoint joins: the device with its addresses, which is
// down, and no more of it. One that somebody is in stays; what a
// crash has left, for this subnet or another, is made anew. The error wraps ErrInUse
// if a device of somebody else is in the subnet. What is reserved is freed by Release,
// or by Leave of the last endpoint.
func (h Host) Reserve(n Network) error {
	if err := n.Validate(); err != nil {
		return fmt.Errorf("network %.64s: %w", n.ID, err)
	}
	return h.locked(func(x *transaction) error {
		used, err := otherPorts(n.Device(), "")
		if err == nil && (used || slices.Contains(x.have.bridges(), n.Device())) {
			used, err = hasAddress(n.Device(), n.Gateway)
		}
		if used || err != nil {
			return err
		}
		if err := h.removeLeft(n.Device()); err != nil {
			return err
		}
		if err := h.holdSubnet(n); err != nil {
			return errors.Join(fmt.Errorf("bridge %s: %w", n.Device(), err), h.removeBridge(n.Device()))
		}
		return nil
	})
}

// removeLeft is removeBridge of one that is there.
func (h Host) removeLeft(bridge string) error {
	link, err := find(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	if link == nil {
		return nil
	}
	return h.removeBridge(bridge)
}

func (h Host) holdSubnet(n Network) error {
	link, err := h.findOrAdd(n)
	if err == nil && n.Subnet6.IsValid() {
		err = bridgeSysctls(n) // a new device may have no IPv6
	}
	if err != nil {
		return err
	}
	return setAddresses(link, n)
}

// Release takes the bridge of a network away, unless an endpoint is joined to it.
// It is no error that it is not there.
func (h Host) Release(n Network) error {
	if err := n.Validate(); err != nil {
		return fmt.Errorf("network %.64s: %w", n.ID, err)
	}
	return h.locked(func(x *transaction) error {
		free, err := x.unused(n.Device(), "")
		if err != nil {
			return err
		}
		return x.leave(func(part) bool { return false }, free, nil)
	})
}

// hasAddress is that a device is there and has an address, with whatever prefix.
func hasAddress(device string, a netip.Addr) (bool, error) {
	link, err := find(device)
	if err != nil || link == nil {
		return false, err
	}
	addrs, err := consistent(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("list addresses of %s: %w", device, err)
	}
	return slices.ContainsFunc(addrs, func(of netlink.Addr) bool { return of.IP.Equal(net.IP(a.AsSlice())) }), nil
}
