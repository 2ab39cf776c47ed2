package manager

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
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
	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/network/ipam"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// PortBinding is a published port.
type PortBinding = state.PortBinding

// Network is what a running container has.
type Network = state.Network

// Modes of a container's network, as in HostConfig.NetworkMode, where "" is
// NetworkUser, and anything else a network with a record.
const (
	NetworkNone = "none"
	NetworkUser = "user"
	// NetworkBridge is docker's default network, which has a record.
	NetworkBridge = "bridge"
	// NetworkDefault is, of a new container, the one that DefaultNetwork says.
	NetworkDefault = "default"
)

// hostGateway is an address of --add-host: that of the host, as the guest sees it.
const hostGateway = "host-gateway"

// checkNetwork refuses what cannot be published.
func checkNetwork(h state.HostConfig) error {
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
	// ::ffff:0.0.0.0 would be taken for ::.
	p.Host = netip.AddrPortFrom(addr.Unmap(), b.HostPort)
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

// networkPlan is the network of a container's next start, a device for each of its
// networks. The caller holds the container's lock.
func (m *Manager) networkPlan(c *state.Config, k *kernel.Kernel) ([]network.NIC, error) {
	if len(attachments(c)) == 0 {
		return nil, nil
	}
	if k.Support(kernel.VirtioNet) == kernel.Missing {
		return nil, fmt.Errorf("kernel %s has no virtio_net: use another one, or --network none", k.Release)
	}
	members, err := m.takeLeases(c, m.prepareBridges)
	if err != nil {
		return nil, err
	}
	var host []netip.Prefix
	if slices.ContainsFunc(attachments(c), func(a state.Attachment) bool { return !recorded(a) }) {
		host = m.hostNetworks()
	}
	nics := m.planNICs(c, members, host, network.UplinkMTU())
	return nics, addPorts(nics, portBindings(c))
}

// planNICs makes a device for each network of a container. host are the networks
// of the host, from which one that has no record keeps away. Pure.
func (m *Manager) planNICs(c *state.Config, members []membership, host []netip.Prefix, mtu int) []network.NIC {
	for _, to := range members {
		if to.network.Subnet.IsValid() {
			host = append(host, to.network.Subnet)
		}
	}
	var out []network.NIC
	for i, a := range attachments(c) {
		n := network.NIC{Name: a.Name}
		switch {
		case !recorded(a):
			plan := network.User(host, nil)
			plan.MAC = cmp.Or(a.MAC, plan.MAC)
			n.User = &plan
		case members[i].network.Driver == DriverUser:
			n.User = userPlan(members[i])
		default:
			n.Bridge = &network.Bridge{Host: m.bridgeHost(), Endpoint: endpoint(members[i], network.DeviceName(c.ID, i), mtu)}
		}
		out = append(out, n)
	}
	// A name that no network knows is asked of others by a VM that reaches others.
	outside := network.Routed(out) >= 0
	ask := forwarders(c.HostConfig.DNS, out)
	for _, n := range out {
		if n.User != nil {
			n.User.Upstream, n.User.Forwarders = outside, ask
		} else {
			n.Bridge.Upstream, n.Bridge.Forwarders = outside, ask
		}
	}
	return out
}

// userPlan is a container's place in a network of driver user. Pure.
func userPlan(m membership) *network.Plan {
	r, l := m.network, m.lease
	return &network.Plan{
		MAC: l.MAC, Guest: prefixOf(l.Address, r.Subnet), Gateway: r.Gateway, GatewayMAC: ipam.MAC(r.Gateway),
		Guest6: prefixOf(l.Address6, r.Subnet6), Gateway6: r.Gateway6,
		MTU: cmp.Or(mtuOf(r), network.UserMTU), Network: r.ID, Internal: r.Internal,
	}
}

// endpoint is a container's place in a bridge network, whose device has mtu if the network
// has none of its own. Pure.
func endpoint(m membership, device string, mtu int) bridge.Endpoint {
	r, l := m.network, m.lease
	return bridge.Endpoint{
		Network: bridgeNetwork(r, mtu),
		VM:      l.VM, Device: device, MAC: l.MAC, Address: prefixOf(l.Address, r.Subnet), Address6: prefixOf(l.Address6, r.Subnet6),
	}
}

// bridgeNetwork is a network as the host has it, with mtu if it has none of its
// own. Pure.
func bridgeNetwork(r state.NetworkRecord, mtu int) bridge.Network {
	return bridge.Network{
		ID: r.ID, Subnet: r.Subnet, Gateway: r.Gateway, Subnet6: r.Subnet6, Gateway6: r.Gateway6,
		Internal: r.Internal, MTU: cmp.Or(mtuOf(r), mtu),
	}
}

// tableName is the name of a root's tables of rules. Pure.
func tableName(root string) string {
	sum := sha256.Sum256([]byte(root))
	return "micropod-" + hex.EncodeToString(sum[:6])
}

// addPorts publishes ports by the first device that others are reached by. An
// internal network has none, as in docker.
func addPorts(nics []network.NIC, bindings []PortBinding) error {
	var ports []network.Port
	for _, b := range bindings {
		p, err := port(b)
		if err != nil {
			return err
		}
		ports = append(ports, p)
	}
	switch i := network.Routed(nics); {
	case i < 0:
	case nics[i].User != nil:
		nics[i].User.Ports = ports
	default:
		nics[i].Bridge.Ports = ports
	}
	return nil
}

// nics are the devices of a plan, for the VMM and for the guest. Pure.
func nics(plan []network.NIC) (out []vmm.NIC, guest []api.NIC) {
	routed := network.Routed(plan)
	for i, n := range plan {
		out = append(out, vmm.NIC{MAC: n.MAC(), MTU: n.MTU(), Device: n.Device()})
		g := api.NIC{MAC: n.MAC(), MTU: n.MTU(), Address: n.Guest().String()}
		if n.Guest6().IsValid() {
			g.Address6 = n.Guest6().String()
		}
		if i == routed {
			g.Gateway = n.Gateway().String()
			if n.Gateway6().IsValid() {
				g.Gateway6 = n.Gateway6().String()
			}
		}
		guest = append(guest, g)
	}
	return out, guest
}

// hosts are the lines of --add-host, which has NAME:ADDRESS, and behind them
// the container's own, as docker has them. Pure.
func hosts(c *state.Config, plan []network.NIC) ([]api.Host, error) {
	var out []api.Host
	for _, e := range c.HostConfig.ExtraHosts {
		name, addr, _ := strings.Cut(e, ":")
		if addr == hostGateway {
			if len(plan) == 0 && c.HostConfig.NetworkMode != NetworkNone {
				continue // it has left its networks
			}
			if len(plan) == 0 {
				return nil, fmt.Errorf("%w: host-gateway needs a network: --network none has none", ErrInvalid)
			}
			addr = network.HostGateway(plan).String()
		}
		out = append(out, api.Host{Addr: addr, Names: []string{name}})
	}
	for _, n := range plan {
		for _, p := range []netip.Prefix{n.Guest(), n.Guest6()} {
			if p.IsValid() {
				out = append(out, api.Host{Addr: p.Addr().String(), Names: ownNames(c.Hostname, c.Domainname)})
			}
		}
	}
	return out, nil
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

// dns is what goes into resolv.conf: what the user said, else what the host has. The
// name server is a gateway then, which asks the host's, or the user's. Pure.
func dns(h state.HostConfig, plan []network.NIC, host network.Resolver) api.DNS {
	d := api.DNS{Servers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions}
	if len(plan) > 0 {
		if len(d.Servers) == 0 || len(forwarders(h.DNS, plan)) > 0 {
			d.Servers = []string{nameServer(plan).String()}
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

// forwarders are the name servers that the user chose, as those whom the VM's own one
// asks: only that knows the containers of its networks. None are left to it where it
// knows nobody, or where one is another to the host than to the guest. Pure.
func forwarders(servers []string, plan []network.NIC) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		isGuest := func(n network.NIC) bool { return n.Guest().Contains(a) || n.Guest6().Contains(a) }
		if err != nil || a.IsLoopback() || a.IsUnspecified() || slices.ContainsFunc(plan, isGuest) {
			return nil
		}
		out = append(out, a)
	}
	if !slices.ContainsFunc(plan, hasNames) {
		return nil
	}
	return out
}

// hasNames reports whether containers of a network have names there. In docker's
// default one they have none.
func hasNames(n network.NIC) bool { return n.Network() != "" && n.Name != NetworkBridge }

// nameServer is one that knows the names of all networks, if there is one. Pure.
func nameServer(plan []network.NIC) netip.Addr {
	i := slices.IndexFunc(plan, func(n network.NIC) bool { return n.Network() != "" })
	return plan[max(i, 0)].Gateway()
}

// NetworkMode is the mode of a container by its name.
func NetworkMode(h HostConfig) string { return cmp.Or(h.NetworkMode, NetworkUser) } // of an older record
