package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/micropod/micropod/pkg/network/bridge"
)

// NIC is one network device of a VM: either User or Bridge is set. It travels as
// JSON.
type NIC struct {
	Name   string  `json:"name"` // of the network
	User   *Plan   `json:"user,omitempty"`
	Bridge *Bridge `json:"bridge,omitempty"`
}

// Bridge is a NIC in a bridge network.
type Bridge struct {
	Host bridge.Host `json:"host"`
	// Endpoint is complete but for what Start finds: Forwards and NameServer. The
	// MTU of its network is the device's.
	Endpoint bridge.Endpoint `json:"endpoint"`
	// Ports that are published, in the order in which they are taken.
	Ports []Port `json:"ports,omitempty"`
	// Upstream: names that are not the network's are asked of the host's servers.
	Upstream bool `json:"upstream,omitempty"`
	// Forwarders are asked with Upstream in the place of the host's.
	Forwarders []netip.Addr `json:"forwarders,omitempty"`
}

// MAC is the device's address.
func (n NIC) MAC() string {
	if n.User != nil {
		return n.User.MAC
	}
	return n.Bridge.Endpoint.MAC
}

// MTU is the device's, in bytes.
func (n NIC) MTU() int {
	if n.User != nil {
		return n.User.MTU
	}
	return n.Bridge.Endpoint.Network.MTU
}

// Device is the name of a TAP device of the host, "" in user mode.
func (n NIC) Device() string {
	if n.User != nil {
		return ""
	}
	return n.Bridge.Endpoint.Device
}

// Guest is the guest's IPv4 address, with the length of its network's prefix.
func (n NIC) Guest() netip.Prefix {
	if n.User != nil {
		return n.User.Guest
	}
	return n.Bridge.Endpoint.Address
}

// Guest6 is the guest's IPv6 address, invalid without.
func (n NIC) Guest6() netip.Prefix {
	if n.User != nil {
		return n.User.Guest6
	}
	return n.Bridge.Endpoint.Address6
}

// Gateway is the host's IPv4 address in the network: that of the name server too.
func (n NIC) Gateway() netip.Addr {
	if n.User != nil {
		return n.User.Gateway
	}
	return n.Bridge.Endpoint.Network.Gateway
}

// Gateway6 is the host's IPv6 address, invalid without.
func (n NIC) Gateway6() netip.Addr {
	if n.User != nil {
		return n.User.Gateway6
	}
	return n.Bridge.Endpoint.Network.Gateway6
}

// Internal reports whether nothing beyond the network is reached by it.
func (n NIC) Internal() bool {
	if n.User != nil {
		return n.User.Internal
	}
	return n.Bridge.Endpoint.Network.Internal
}

// Routed is the index of the NIC by which a VM reaches others than those of its
// networks, and is reached; -1 for none. Pure.
func Routed(nics []NIC) int {
	return slices.IndexFunc(nics, func(n NIC) bool { return !n.Internal() })
}

// HostGateway is the address that stands for the host of a VM that has a NIC. Pure.
func HostGateway(nics []NIC) netip.Addr { return nics[max(Routed(nics), 0)].Gateway() }

// Ports are those that are published by it, in the order in which they are taken.
func (n NIC) Ports() []Port {
	if n.User != nil {
		return n.User.Ports
	}
	return n.Bridge.Ports
}

// Renewed is the NIC with what another plan for it says of names, which the VM's other
// networks are a reason for. Pure.
func (n NIC) Renewed(by NIC) NIC {
	if n.User != nil {
		u := *n.User
		u.Forwarders, u.Upstream = by.Asks()
		n.User = &u
		return n
	}
	b := *n.Bridge
	b.Forwarders, b.Upstream = by.Asks()
	n.Bridge = &b
	return n
}

// Asks is what the VM's names need to know: see Names. All NICs of a VM say the same. Pure.
func (n NIC) Asks() (forwarders []netip.Addr, outside bool) {
	if n.User != nil {
		return n.User.Forwarders, n.User.Upstream
	}
	return n.Bridge.Forwarders, n.Bridge.Upstream
}

// Network is the id of the network's record, "" for a link of the guest's own.
func (n NIC) Network() string {
	if n.User != nil {
		return n.User.Network
	}
	return n.Bridge.Endpoint.Network.ID
}

// DeviceName is the name of the TAP device of a VM's i-th NIC: one that no other
// VM has, and no other of its NICs. A name has at most 15 bytes.
func DeviceName(vm string, i int) string { return fmt.Sprintf("mp%.12s%c", vm, 'a'+i) }

// Bounds of the MTU of a device in a bridge network, in bytes.
const (
	leastMTU   = 1280
	commonMTU  = 1500
	largestMTU = UserMTU
)

// UplinkMTU is the MTU of the device that leads to the rest of the world, within
// what a VM's device can have.
func UplinkMTU() int {
	host := hostAddress(netip.IPv4Unspecified())
	if !host.IsValid() {
		return commonMTU
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return commonMTU
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == host {
				return min(max(i.MTU, leastMTU), largestMTU)
			}
		}
	}
	return commonMTU
}
