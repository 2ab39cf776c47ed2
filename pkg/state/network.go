package state

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

// Network is what a running container has.
type Network struct {
	Mode    string `json:"mode"`
	MAC     string `json:"mac"`
	Address string `json:"address"` // with the length of the network's prefix
	Gateway string `json:"gateway"`
	// Ports have a HostPort each.
	Ports []PortBinding `json:"ports,omitempty"`
}
