package state

import "net/netip"

// Modes of a network, as in Network.Mode.
const (
	ModeUser   = "user"
	ModeBridge = "bridge"
)

// Attachment is a network that a container is to be in, as its user asked for it.
type Attachment struct {
	// Network is the id of a record of networks.json, or ModeUser.
	Network string `json:"network"`
	// Name is that of the network when the container was connected.
	Name string `json:"name"`
	// Aliases are names of the container in this network, beside its own.
	Aliases []string `json:"aliases,omitempty"`
	// Address, Address6 and MAC are those that the user chose.
	Address  netip.Addr `json:"address,omitzero"`
	Address6 netip.Addr `json:"address6,omitzero"`
	MAC      string     `json:"mac,omitempty"`
}

// PortBinding publishes a port of the guest.
type PortBinding struct {
	Port string `json:"port"` // of the guest, as 80/tcp
	// HostIP is where the host listens; "" is every address.
	HostIP string `json:"hostIp,omitempty"`
	// HostPort is the port of the host, 0 any free one. HostPortEnd ends a range
	// of which any free one is taken.
	HostPort    uint16 `json:"hostPort,omitempty"`
	HostPortEnd uint16 `json:"hostPortEnd,omitempty"`
}

// Network is what a running container has of one network. It is enough to take
// the container out of it, should its supervisor be lost.
type Network struct {
	Mode string `json:"mode"`
	// ID is that of the network's record, Internal says that there is no way out.
	// Device and NameServer are of a bridge network: the TAP device on the host, and
	// the port of the gateway at which the supervisor answers questions for names.
	ID         string `json:"id,omitempty"`
	Name       string `json:"name"`
	Device     string `json:"device,omitempty"`
	MAC        string `json:"mac"`
	Address    string `json:"address"` // with the length of the network's prefix
	Gateway    string `json:"gateway"`
	Address6   string `json:"address6,omitempty"`
	Gateway6   string `json:"gateway6,omitempty"`
	MTU        int    `json:"mtu,omitempty"`
	Internal   bool   `json:"internal,omitempty"`
	NameServer uint16 `json:"nameServer,omitempty"`
	// Leaving: the VM has ended, and its supervisor takes it out.
	Leaving bool `json:"leaving,omitempty"`
	// Ports have a HostPort each.
	Ports []PortBinding `json:"ports,omitempty"`
}
