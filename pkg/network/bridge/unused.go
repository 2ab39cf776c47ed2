package bridge

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// ErrInUse says that a device of the host is in a network's subnet.
var ErrInUse = errors.New("in use on this host")

// unused refuses subnets that a device of the host is in: packets for guests, those
// to published ports among them, would go to others there. It may have come, as one
// of Docker's or of another Host, after the network was made. A larger network may
// hold a subnet: the route to that counts more.
func unused(subnets ...netip.Prefix) error {
	addrs, err := consistent(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(address(a.IP), ones)
		for _, s := range subnets {
			if s.IsValid() && s.Contains(p.Addr()) && ones >= s.Bits() {
				return fmt.Errorf("%s is %w: %s has the address %s (create a network with another --subnet)", s, ErrInUse, deviceOf(a), p)
			}
		}
	}
	return nil
}

func deviceOf(a netlink.Addr) string {
	link, err := netlink.LinkByIndex(a.LinkIndex)
	if err != nil {
		return fmt.Sprintf("device %d", a.LinkIndex)
	}
	return "device " + link.Attrs().Name
}
