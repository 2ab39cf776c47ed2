package api

// MaxNICs is how many network devices a guest has at most.
const MaxNICs = 4

// NIC is how the guest configures one of its network devices. Nothing of it is
// found out by the guest: there is no DHCP.
type NIC struct {
	// MAC names the device.
	MAC string `json:"mac"`
	// MTU in bytes.
	MTU int `json:"mtu"`
	// Address is an IPv4 address with the length of its network's prefix.
	Address string `json:"address"`
	// Gateway is the next hop of everything else; "" is no such route.
	Gateway string `json:"gateway,omitempty"`
}
