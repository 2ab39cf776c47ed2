package manager

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/network/ipam"
	"github.com/micropod/micropod/pkg/state"
)

// NetworkOptions describe a new network. The zero value of a field leaves the
// choice to us.
type NetworkOptions struct {
	Name   string
	Driver string // one of the drivers, "" for DefaultDriver
	// Pools are the user's subnets, one of a family at most.
	Pools                      []NetworkPool
	IPv6, Internal, Attachable bool
	Options, Labels            map[string]string
}

// Bounds of a network's MTU, in bytes: those of a VM's device.
const (
	minMTU = 1280
	maxMTU = 65520
)

// CreateNetwork makes a network and returns its id. Nothing of it is on the host
// before a container runs in it.
func (m *Manager) CreateNetwork(_ context.Context, o NetworkOptions) (string, error) {
	if err := checkNetworkName(o.Name); err != nil {
		return "", err
	}
	if err := checkDriver(cmp.Or(o.Driver, DefaultDriver())); err != nil {
		return "", err
	}
	var made state.NetworkRecord
	err := m.state.ChangeNetworks(func(n *state.Networks) error {
		if slices.ContainsFunc(n.Networks, func(r state.NetworkRecord) bool { return r.Name == o.Name }) {
			return wordedf(ErrConflict, "network with name %s already exists", o.Name)
		}
		var err error
		if made, err = newNetwork(o, n, m.hostNetworks()); err == nil {
			n.Networks = append(n.Networks, made)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	m.tellNetwork(events.ActionCreate, made)
	return made.ID, nil
}

// hostNetworks are what the host uses itself.
func (m *Manager) hostNetworks() []netip.Prefix { return network.HostNetworks() }

func checkNetworkName(name string) error {
	if predefined(name) {
		return wordedf(ErrInvalid, "operation is not permitted on predefined %s network", name)
	}
	kind, _, _ := strings.Cut(name, ":")
	if kind == "container" || state.CheckName(name) != nil && state.CheckName(name+"0") != nil {
		return wordedf(ErrInvalid, "invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// newNetwork makes the record of a network beside those that are there and what
// the host uses. Pure but for the id, the time and a random IPv6 subnet.
func newNetwork(o NetworkOptions, n *state.Networks, host []netip.Prefix) (state.NetworkRecord, error) {
	r := state.NetworkRecord{
		ID: state.NewID(), Name: o.Name, Driver: cmp.Or(o.Driver, DefaultDriver()), Created: time.Now().UTC(),
		Internal: o.Internal, Attachable: o.Attachable, Options: o.Options, Labels: o.Labels,
	}
	if r.Driver != DriverBridge && r.Driver != DriverUser {
		return r, wordedf(ErrInvalid, "network driver %q is not supported: only bridge and user", r.Driver)
	}
	for _, p := range o.Pools {
		if err := usePool(&r, p, n); err != nil {
			return r, err
		}
	}
	if r.Subnet6.IsValid() && !o.IPv6 {
		return r, wordedf(ErrInvalid, "invalid network config: the IPv6 subnet %s needs --ipv6", r.Subnet6)
	}
	taken := append(takenSubnets(n, ""), host...)
	var err error
	if !r.Subnet.IsValid() {
		if r.Subnet, err = ipam.Subnet(taken); err != nil {
			return r, wordedf(ErrConflict, "%v: give one with --subnet", err)
		}
	}
	if o.IPv6 && !r.Subnet6.IsValid() {
		r.Subnet6 = ipam.Subnet6(taken)
	}
	if err := addGateways(&r); err != nil {
		return r, err
	}
	if err := checkNetworkOptions(r); err != nil {
		return r, err
	}
	return r, checkSubnets(r)
}

// checkSubnets refuses what no container could be started in.
func checkSubnets(r state.NetworkRecord) error {
	if r.Driver != DriverBridge {
		return nil
	}
	if err := bridgeNetwork(r, 0).Validate(); err != nil {
		return wordedf(ErrInvalid, "invalid network config: %v", err)
	}
	return nil
}

// usePool gives a network a subnet of its user's.
func usePool(r *state.NetworkRecord, p NetworkPool, n *state.Networks) error {
	if err := checkPool(p); err != nil {
		return err
	}
	if err := overlap(p.Subnet, n); err != nil {
		return err
	}
	subnet, within, gateway := &r.Subnet, &r.Range, &r.Gateway
	if p.Subnet.Addr().Is6() {
		subnet, within, gateway = &r.Subnet6, &r.Range6, &r.Gateway6
	}
	if subnet.IsValid() {
		return wordedf(ErrInvalid, "invalid network config: a bridge network has one subnet of a family: %s and %s", *subnet, p.Subnet)
	}
	*subnet, *within, *gateway = p.Subnet, p.Range, p.Gateway
	for name, a := range p.Reserved {
		r.Reserved = withEntry(r.Reserved, name, a)
	}
	return nil
}

// checkPool refuses a subnet that no guest could live in, and what is not in it.
func checkPool(p NetworkPool) error {
	s := p.Subnet
	if s != s.Masked() {
		return wordedf(ErrInvalid, "invalid network config: invalid subnet %s: it should be %s", s, s.Masked())
	}
	for _, never := range []string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"} {
		if s.Overlaps(netip.MustParsePrefix(never)) {
			return wordedf(ErrInvalid, "invalid network config: invalid subnet %s: it is not for hosts", s)
		}
	}
	if s.Bits() > s.Addr().BitLen()-2 {
		return wordedf(ErrInvalid, "invalid network config: invalid subnet %s: it is too small", s)
	}
	if p.Range.IsValid() && (p.Range != p.Range.Masked() || !s.Contains(p.Range.Addr()) || p.Range.Bits() < s.Bits()) {
		return wordedf(ErrInvalid, "invalid network config: invalid ip-range %s: it is not a part of %s", p.Range, s)
	}
	if p.Gateway.IsValid() && !ipam.Usable(s, p.Gateway) {
		return wordedf(ErrInvalid, "invalid network config: invalid gateway %s: no address of a host in %s", p.Gateway, s)
	}
	for name, a := range p.Reserved {
		if !ipam.Usable(s, a) {
			return wordedf(ErrInvalid, "invalid network config: invalid auxiliary address %s (%s): no address of a host in %s", a, name, s)
		}
	}
	return nil
}

// addGateways chooses the gateways that the user did not.
func addGateways(r *state.NetworkRecord) error {
	for _, f := range []struct {
		subnet, within netip.Prefix
		gateway        *netip.Addr
	}{{r.Subnet, r.Range, &r.Gateway}, {r.Subnet6, r.Range6, &r.Gateway6}} {
		if !f.subnet.IsValid() || f.gateway.IsValid() {
			continue
		}
		var err error
		if *f.gateway, err = ipam.Free(f.subnet, f.within, r.Keeps); err != nil {
			return wordedf(ErrInvalid, "invalid network config: no address is left for the gateway of %s", f.subnet)
		}
	}
	return nil
}

func checkNetworkOptions(r state.NetworkRecord) error {
	// What asks for what is so anyway.
	neutral := map[string]string{
		"com.docker.network.bridge.enable_icc": "true", "com.docker.network.bridge.enable_ip_masquerade": "true",
		"com.docker.network.bridge.host_binding_ipv4": "0.0.0.0", "com.docker.network.bridge.default_bridge": "false",
		"com.docker.network.bridge.gateway_mode_ipv4": "nat", "com.docker.network.bridge.gateway_mode_ipv6": "nat",
	}
	for key, value := range r.Options {
		if v, ok := neutral[key]; ok && v == value || key == optionMTU {
			continue
		}
		return wordedf(ErrInvalid, "--opt %s=%s is not supported", key, value)
	}
	value, given := r.Options[optionMTU]
	if !given {
		return nil
	}
	if mtu, err := strconv.Atoi(value); err != nil || mtu < minMTU || mtu > maxMTU {
		return wordedf(ErrInvalid, "invalid MTU %s: a network has %d to %d", value, minMTU, maxMTU)
	}
	return nil
}
