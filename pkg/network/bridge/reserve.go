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
// takes its subnet before an endpoint joins. One that somebody is in stays; what a
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
		if err := h.removeBridge(n.Device()); err != nil {
			return err
		}
		if err := h.makeBridge(n); err != nil {
			return errors.Join(err, h.removeBridge(n.Device()))
		}
		return nil
	})
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
