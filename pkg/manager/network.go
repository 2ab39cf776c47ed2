package manager

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// PortBinding is a published port.
type PortBinding = state.PortBinding

// Network is what a running container has.
type Network = state.Network

// Modes of a container's network, as in HostConfig.NetworkMode; "" is the
// default, NetworkUser.
const (
	NetworkNone = "none"
	NetworkUser = "user"
)

// hostGateway is an address of --add-host: that of the host, as the guest sees it.
const hostGateway = "host-gateway"

// checkNetwork refuses what cannot be published.
func checkNetwork(h state.HostConfig) error {
	switch h.NetworkMode {
	case "", NetworkNone, NetworkUser:
	default:
		return fmt.Errorf("%w: network %s not found", ErrNotFound, h.NetworkMode)
	}
	for _, p := range h.PortBindings {
		if _, err := port(p); err != nil {
			return err
		}
	}
	return nil
}

// port turns a binding into what the network takes.
func port(b PortBinding) (network.Port, error) {
	number, proto, _ := strings.Cut(b.Port, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return network.Port{}, fmt.Errorf("%w: invalid port %q", ErrInvalid, b.Port)
	}
	if proto != "tcp" && proto != "udp" {
		return network.Port{}, fmt.Errorf("%w: cannot publish %s: only tcp and udp", ErrInvalid, b.Port)
	}
	p := network.Port{Proto: proto, Guest: uint16(n), HostEnd: b.HostPortEnd, Any: b.HostIP == ""}
	addr := netip.IPv4Unspecified()
	if !p.Any {
		if addr, err = netip.ParseAddr(b.HostIP); err != nil {
			return network.Port{}, fmt.Errorf("%w: invalid IP address: %s", ErrInvalid, b.HostIP)
		}
	}
	p.Host = netip.AddrPortFrom(addr, b.HostPort)
	return p, nil
}

// maxExposed bounds what the ranges of an image become: every port of three
// protocols, and some more than once.
const maxExposed = 4 << 16

// exposedPorts are those of the image and the user, sorted, each once, as 80/tcp.
// Pure.
func exposedPorts(ofImage map[string]struct{}, user []string) ([]string, error) {
	all := slices.Clone(user)
	for spec := range ofImage {
		ports, err := image.ParsePorts(spec)
		if err != nil {
			return nil, err
		}
		if all = append(all, ports...); len(all) > maxExposed {
			return nil, errors.New("invalid list of ports: too many")
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// portBindings are those of the user, and with PublishAll one for each exposed
// port that the user did not publish and that can be published: there is no SCTP
// on the way to a guest. Pure.
func portBindings(c *state.Config) []PortBinding {
	out := slices.Clone(c.HostConfig.PortBindings)
	if !c.HostConfig.PublishAll {
		return out
	}
	for _, e := range c.ExposedPorts {
		if strings.HasSuffix(e, "/sctp") {
			continue
		}
		if !slices.ContainsFunc(out, func(b PortBinding) bool { return b.Port == e }) {
			out = append(out, PortBinding{Port: e})
		}
	}
	return out
}

// networkPlan is the network of a container's next start, nil for none. taken
// are the networks of the host. Pure.
func networkPlan(c *state.Config, k *kernel.Kernel, taken []netip.Prefix) (*network.Plan, error) {
	if c.HostConfig.NetworkMode == NetworkNone {
		return nil, nil
	}
	if k.Support(kernel.VirtioNet) == kernel.Missing {
		return nil, fmt.Errorf("kernel %s has no virtio_net: use another one, or --network none", k.Release)
	}
	var ports []network.Port
	for _, b := range portBindings(c) {
		p, err := port(b)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	plan := network.User(taken, ports)
	return &plan, nil
}

// nics are the devices of a plan, for the VMM and for the guest. Pure.
func nics(p *network.Plan) ([]vmm.NIC, []api.NIC) {
	if p == nil {
		return nil, nil
	}
	return []vmm.NIC{{MAC: p.MAC, MTU: p.MTU}},
		[]api.NIC{{MAC: p.MAC, MTU: p.MTU, Address: p.Guest.String(), Gateway: p.Gateway.String()}}
}

// hosts are the lines of --add-host, which has NAME:ADDRESS, and behind them
// the container's own, as docker has them. Pure.
func hosts(c *state.Config, p *network.Plan) ([]api.Host, error) {
	var out []api.Host
	for _, e := range c.HostConfig.ExtraHosts {
		name, addr, _ := strings.Cut(e, ":")
		if addr == hostGateway {
			if p == nil {
				return nil, fmt.Errorf("%w: host-gateway needs a network: --network none has none", ErrInvalid)
			}
			addr = p.Gateway.String()
		}
		out = append(out, api.Host{Addr: addr, Names: []string{name}})
	}
	if p == nil {
		return out, nil
	}
	return append(out, api.Host{Addr: p.Guest.Addr().String(), Names: ownNames(c.Hostname, c.Domainname)}), nil
}

// ownNames are a container's full name, if it has one, and its short one.
func ownNames(host, domain string) []string {
	short, rest, full := strings.Cut(host, ".")
	switch {
	case full && rest != "":
		return []string{host, short}
	case domain != "":
		return []string{host + "." + domain, host}
	}
	return []string{host}
}

// dns is what goes into resolv.conf: what the user said, else what the host
// has; the name server is the gateway then, which asks the host's. Pure.
func dns(h state.HostConfig, p *network.Plan, host network.Resolver) api.DNS {
	d := api.DNS{Servers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions}
	if p != nil {
		if len(d.Servers) == 0 {
			d.Servers = []string{p.Gateway.String()}
		}
		if len(d.Search) == 0 {
			d.Search = host.Search
		}
		if len(d.Options) == 0 {
			d.Options = host.Options
		}
	}
	// A search domain of "." means none.
	d.Search = slices.DeleteFunc(slices.Clone(d.Search), func(s string) bool { return s == "." })
	return d
}

// NetworkMode is the mode of a container by its name.
func NetworkMode(h HostConfig) string { return cmp.Or(h.NetworkMode, NetworkUser) }
