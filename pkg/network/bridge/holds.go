package bridge

import (
	"net"
	"net/netip"
	"strings"
)

// Holds reports whether an address is of a guest or a gateway of a bridge network
// on this host, whoever's. The host itself may talk to all of them, so that who
// connects in a guest's place has to ask. What cannot be found out is held.
func Holds(a netip.Addr) bool {
	interfaces, err := net.Interfaces()
	if err != nil {
		return true
	}
	for _, i := range interfaces {
		if strings.HasPrefix(i.Name, bridgePrefix) && has(i, a) {
			return true
		}
	}
	return false
}

// has reports whether an address is in a network of a device's.
func has(i net.Interface, a netip.Addr) bool {
	addrs, err := i.Addrs()
	if err != nil {
		return true
	}
	for _, of := range addrs {
		if p, err := netip.ParsePrefix(of.String()); err != nil || p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}
