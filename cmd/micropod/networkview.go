package main

import (
	"net/netip"

	"github.com/micropod/micropod/pkg/manager"
)

type networkSettingsView struct {
	Ports    map[string][]portView
	Networks map[string]endpointView

	IPAddress, Gateway, MacAddress string
	IPPrefixLen                    int

	IPv6Gateway, GlobalIPv6Address string
	GlobalIPv6PrefixLen            int
}

type endpointView struct {
	IPAMConfig                     *endpointIPAMView
	Aliases, DNSNames              []string
	NetworkID, EndpointID          string
	IPAddress, Gateway, MacAddress string
	IPPrefixLen                    int
	IPv6Gateway, GlobalIPv6Address string
	GlobalIPv6PrefixLen            int
}

// endpointIPAMView are the addresses that the user chose.
type endpointIPAMView struct {
	IPv4Address string `json:",omitempty"`
	IPv6Address string `json:",omitempty"`
}

// inspectNetwork shows the networks of a container. The addresses without a
// network's name are, as in docker, those of the first.
func inspectNetwork(c *manager.Container) networkSettingsView {
	v := networkSettingsView{Ports: portMap(publishedPorts(c), false), Networks: map[string]endpointView{}}
	if _, shared := manager.SharedNetwork(c.HostConfig); shared {
		return v // what there is, the other container has
	}
	if len(c.Attachments) == 0 {
		v.Networks[manager.NetworkNone] = endpointView{}
	}
	for i, a := range c.Attachments {
		e := inspectEndpoint(c, a)
		v.Networks[a.Name] = e
		if i > 0 {
			continue
		}
		v.IPAddress, v.Gateway, v.MacAddress, v.IPPrefixLen = e.IPAddress, e.Gateway, e.MacAddress, e.IPPrefixLen
		v.IPv6Gateway, v.GlobalIPv6Address, v.GlobalIPv6PrefixLen = e.IPv6Gateway, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen
	}
	return v
}

func inspectEndpoint(c *manager.Container, a manager.NetworkAttachment) endpointView {
	e := endpointView{Aliases: a.Aliases}
	if a.Address.IsValid() || a.Address6.IsValid() {
		e.IPAMConfig = &endpointIPAMView{}
		if a.Address.IsValid() {
			e.IPAMConfig.IPv4Address = a.Address.String()
		}
		if a.Address6.IsValid() {
			e.IPAMConfig.IPv6Address = a.Address6.String()
		}
	}
	if a.Network != manager.NetworkUser && a.Name != manager.NetworkBridge {
		e.DNSNames = append(append([]string{c.Name}, a.Aliases...), shortID(c.ID))
		if c.Hostname != shortID(c.ID) {
			e.DNSNames = append(e.DNSNames, c.Hostname)
		}
	}
	for _, n := range c.Networks {
		if n.Name == a.Name {
			live(&e, c, n)
		}
	}
	return e
}

// live fills in what a container has of a network while it runs.
func live(e *endpointView, c *manager.Container, n manager.Network) {
	if n.ID != "" {
		e.NetworkID, e.EndpointID = n.ID, endpointID(n.ID, c.ID)
	}
	e.Gateway, e.MacAddress, e.IPv6Gateway = n.Gateway, n.MAC, n.Gateway6
	if p, err := netip.ParsePrefix(n.Address); err == nil {
		e.IPAddress, e.IPPrefixLen = p.Addr().String(), p.Bits()
	}
	if p, err := netip.ParsePrefix(n.Address6); err == nil {
		e.GlobalIPv6Address, e.GlobalIPv6PrefixLen = p.Addr().String(), p.Bits()
	}
}
