package api

// MaxNICs is how many network devices a guest has at most.
const MaxNICs = 4

// NIC is how the guest configures one of its network devices, the i-th as ethI.
// Nothing of it is found out by the guest: there is no DHCP, and routers'
// advertisements are not listened to.
type NIC struct {
	// MAC names the device. If there is one with TemplateMAC instead, that one
	// gets this address: the guest has gone on from another one's state.
	MAC         string `json:"mac"`
	TemplateMAC string `json:"templateMac,omitempty"`
	// MTU in bytes.
	MTU int `json:"mtu"`
	// Address is an IPv4 address with the length of its network's prefix,
	// Address6 an IPv6 one; "" is none, and without Address6 the device has no
	// IPv6 at all.
	Address  string `json:"address,omitempty"`
	Address6 string `json:"address6,omitempty"`
	// Gateway and Gateway6 are the next hops of everything else; "" is no such
	// route.
	Gateway  string `json:"gateway,omitempty"`
	Gateway6 string `json:"gateway6,omitempty"`
}
