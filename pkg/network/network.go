// Package network is how a VM reaches others and is reached: addresses,
// published ports, names. What a VM gets is decided when it starts, as a Plan,
// which its supervisor carries out and its guest is told of.
//
// A device of a VM is in user mode (package usernet), of which nothing outlives
// the supervisor but a socket in the VM's directory, or in a bridge network
// (package bridge).
package network

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/network/ipam"
	"github.com/micropod/micropod/pkg/network/nameserver"
	"github.com/micropod/micropod/pkg/network/publish"
	"github.com/micropod/micropod/pkg/network/usernet"
)

// Port is a published port; see publish.Port.
type Port = publish.Port

// Plan is the network of one VM. It travels as JSON.
type Plan struct {
	// MAC and Guest are the guest's addresses, Guest with its network's prefix.
	MAC   string       `json:"mac"`
	Guest netip.Prefix `json:"guest"`
	// Gateway is the other end of the guest's link.
	Gateway    netip.Addr `json:"gateway"`
	GatewayMAC string     `json:"gatewayMac"`
	// Guest6 and Gateway6 are the same of IPv6; invalid without.
	Guest6   netip.Prefix `json:"guest6,omitzero"`
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`
	MTU      int          `json:"mtu"` // bytes
	// Network is the id of the network in which the guest has others beside it; ""
	// for a link of its own.
	Network string `json:"network,omitempty"`
	// Internal: nothing beyond the network is reached.
	Internal bool `json:"internal,omitempty"`
	// Upstream: names that are not the network's are asked of the host's servers.
	Upstream bool `json:"upstream,omitempty"`
	// Forwarders are asked with Upstream in the place of the host's.
	Forwarders []netip.Addr `json:"forwarders,omitempty"`
	// Ports that are published, in the order in which they are taken.
	Ports []Port `json:"ports,omitempty"`
}

// UserMTU is the largest that QEMU, Firecracker and Linux's virtio_net have in
// common. The link is no wire: fewer, larger frames cost less.
const UserMTU = 65520

// userNetworks are what a guest in user mode may live in: the first that the
// host does not use itself, so that the guest can reach the host's neighbours.
var userNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.2.0/24"),
	netip.MustParsePrefix("192.168.127.0/24"),
	netip.MustParsePrefix("172.31.254.0/24"),
	netip.MustParsePrefix("10.254.254.0/24"),
}

// User plans a network in user mode. taken are the networks of the host. Pure.
func User(taken []netip.Prefix, ports []Port) Plan {
	chosen := userNetworks[0]
	for _, p := range userNetworks {
		if !ipam.Overlaps(p, taken) {
			chosen = p
			break
		}
	}
	guest, gateway := nth(chosen, 15), nth(chosen, 2)
	return Plan{
		MAC: ipam.MAC(guest), Guest: netip.PrefixFrom(guest, chosen.Bits()),
		Gateway: gateway, GatewayMAC: ipam.MAC(gateway), MTU: UserMTU, Upstream: true, Ports: ports,
	}
}

// nth is the n-th address of an IPv4 network.
func nth(p netip.Prefix, n byte) netip.Addr {
	a := p.Masked().Addr().As4()
	a[3] += n
	return netip.AddrFrom4(a)
}

// hostName reports whether a name is the host's: the address of a gateway stands
// for it.
func hostName(name string) bool {
	switch name {
	case "host.docker.internal", "gateway.docker.internal", "host.micropod.internal":
		return true
	}
	return false
}

// maxQueries is how many questions of a guest for names may be with the host's
// name servers at the same time.
const maxQueries = 64

// server is the configuration of a guest's name server: the host's names, those of
// its networks, and what the forwarders know, or without any the host's name servers.
func (n Names) server(log *slog.Logger) nameserver.Config {
	return nameserver.Config{
		Lookup: func(name string) ([]netip.Addr, bool) {
			if hostName(name) {
				host := n.Host()
				return []netip.Addr{host}, host.IsValid()
			}
			return n.Lookup(name)
		},
		Upstreams: func() []netip.AddrPort {
			forwarders, outside := n.Asks()
			if !outside {
				return nil
			}
			return upstreams(forwarders)
		},
		Reverse: n.Reverse, Queries: maxQueries, Log: log,
	}
}

func upstreams(forwarders []netip.Addr) []netip.AddrPort {
	if len(forwarders) == 0 {
		return resolvers(resolvConf)
	}
	var out []netip.AddrPort
	for _, a := range forwarders {
		out = append(out, netip.AddrPortFrom(a, dnsPort))
	}
	return out
}

// Start makes the network of a plan, one of share of this process: its ports are
// taken when it returns. The guest is joined by Attach of the result.
func (p Plan) Start(names Names, find FindPeer, share int, log *slog.Logger) (*usernet.Network, error) {
	guestMAC, err := net.ParseMAC(p.MAC)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	gatewayMAC, err := net.ParseMAC(p.GatewayMAC)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	c := usernet.Config{
		Guest: p.Guest, Gateway: p.Gateway, Guest6: p.Guest6, Gateway6: p.Gateway6, GuestMAC: guestMAC, GatewayMAC: gatewayMAC, MTU: p.MTU, Ports: p.Ports,
		Names: nameserver.New(names.server(log)), Host: hostAddress, Others: bridge.Holds,
		Share: share, Internal: p.Internal, Log: log,
	}
	if p.Network != "" {
		c.Peers = peers{network: p.Network, find: find}
	}
	return usernet.New(c)
}

// CanPing returns why guests in user mode cannot ping other hosts; nil if they can.
func CanPing() error { return usernet.CanPing() }

// hostAddress is the address that the host has towards the rest of the world, of the
// family of another; invalid when it has none. Nothing is sent to find it out.
func hostAddress(like netip.Addr) netip.Addr {
	world := "192.0.2.1:9" // TEST-NET-1, RFC 5737
	if like.Is6() {
		world = "[2001:db8::1]:9" // RFC 3849
	}
	c, err := net.Dial("udp", world)
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	at, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}
