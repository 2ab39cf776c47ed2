// Package bridge is the host's side of bridge mode: a bridge for each network, a
// TAP device of a VM as its port, and tables of nftables that say who may send
// what where. It talks netlink and runs no program. docs/bridge.md has the path of
// a packet.
//
// An endpoint joins, whether its VMM has made the device or not, is plugged when that
// is there too, and leaves when the VM has ended; each may be done again. A network's
// bridge and its elements in the tables are there while an endpoint is joined to
// it. What is on the host is never asked for what should be: that is in the
// records of the caller, so a firewall that somebody flushed is made again from
// them (Restore), and until then nothing is open (gate.go).
//
// All changes are made under a lock of the file system; the functions are safe for
// use by several processes. They act on the network namespace of the calling
// thread.
package bridge

import "net/netip"

// Network is a bridge network.
type Network struct {
	// ID is 64 characters of [0-9a-f]; the bridge is named for its first 12.
	ID string `json:"id"`
	// Subnet and Gateway are IPv4. The gateway is the bridge's own address.
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
	// Subnet6 and Gateway6 are invalid in a network without IPv6.
	Subnet6  netip.Prefix `json:"subnet6,omitzero"`
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`
	// Internal networks have no way out of the host, and none in.
	Internal bool `json:"internal,omitempty"`
	// MTU is that of the bridge, in bytes; 0 is 1500.
	MTU int `json:"mtu,omitempty"`
}

// Device is the name of the network's bridge.
func (n Network) Device() string { return bridgePrefix + n.ID[:bridgeIDSize] }

// Endpoint is a NIC of a VM in a network.
type Endpoint struct {
	Network Network `json:"network"`
	// VM is the VM's id. Each element of the endpoint in the tables has it as its
	// comment, with the device.
	VM string `json:"vm"`
	// Device is the name of the TAP device: unique on the host.
	Device string `json:"device"`
	MAC    string `json:"mac"`
	// Address, and Address6 if the network has one, have the length of the
	// subnet's prefix. Nothing else may be a source address of the guest.
	Address  netip.Prefix `json:"address"`
	Address6 netip.Prefix `json:"address6,omitzero"`
	// Forwards are ports of the host that lead to the guest.
	Forwards []Forward `json:"forwards,omitempty"`
	// NameServer is the port of the gateway's addresses at which the VM's
	// supervisor answers questions for names, UDP and TCP: what the guest sends
	// to port 53 goes there. 0 is none.
	NameServer uint16 `json:"nameServer,omitempty"`
}

// addresses are those that the endpoint's guest has.
func (e Endpoint) addresses() []netip.Addr {
	all := []netip.Addr{e.Address.Addr()}
	if e.Address6.IsValid() {
		all = append(all, e.Address6.Addr())
	}
	return all
}

// Forward is a published port, for packets that come from other hosts and other
// guests; what the host itself sends is taken by a socket of the supervisor.
type Forward struct {
	Proto string `json:"proto"` // tcp or udp
	// Host has an unspecified address for all that the host has, of its family.
	// One of loopback leads nowhere: it is kept from whoever is not on the host.
	Host  netip.AddrPort `json:"host"`
	Guest uint16         `json:"guest"`
}

// Host is what one root directory has on the host.
type Host struct {
	// Table is the name of the nftables tables (families inet and bridge): the
	// same for all processes of the root directory, of no other.
	Table string
	// Lock is the path of a file that is locked for each change: the same for all
	// root directories, since each looks at what the others have. Its directory is
	// made if it is missing, is emptied when the host boots, and nobody else can write
	// in it.
	Lock string
}
