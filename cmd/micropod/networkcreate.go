package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

type networkCreateFlags struct {
	driver, ipam               string
	subnets, ranges, gateways  []string
	aux, opts, labels          []string
	ipv6, internal, attachable bool
}

func newNetworkCreateCommand(a *app) *cobra.Command {
	var flags networkCreateFlags
	c := newVerb("create [OPTIONS] NETWORK", "Create a network", arguments(1, 1), nil)
	f := c.Flags()
	f.BoolVar(&flags.attachable, "attachable", false, "Enable manual container attachment (recorded only)")
	f.Var(newChecked(&flags.aux, "map", unchecked), "aux-address", "Addresses of the subnet that no container is given (name=address)")
	f.StringVarP(&flags.driver, "driver", "d", "", `Driver to manage the Network: "bridge" (the default for root) or "user" (for others)`)
	f.StringSliceVar(&flags.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	f.BoolVar(&flags.internal, "internal", false, "Restrict external access to the network")
	f.StringSliceVar(&flags.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	f.StringVar(&flags.ipam, "ipam-driver", "default", "IP Address Management Driver (only default)")
	f.BoolVar(&flags.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	f.Var(newChecked(&flags.labels, "list", checkLabel), "label", "Set metadata on a network")
	f.VarP(newChecked(&flags.opts, "map", unchecked), "opt", "o", "Set driver specific options (com.docker.network.driver.mtu)")
	f.StringSliceVar(&flags.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	const swarm = "it is of docker's swarms"
	refuse(f, []dockerFlag{
		{name: "config-from", takesValue: true, why: swarm}, {name: "config-only", neutral: "false", why: swarm},
		{name: "ingress", neutral: "false", why: swarm}, {name: "scope", takesValue: true, neutral: "local", why: swarm},
		valued("ipam-opt", ""), {name: "ipv4", neutral: "true"},
	})
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := flags.options(args[0])
		if err != nil {
			return err
		}
		m, err := a.manager()
		if err != nil {
			return err
		}
		id, err := m.CreateNetwork(c.Context(), o)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, id)
		return err
	}
	return c
}

func (n networkCreateFlags) options(name string) (manager.NetworkOptions, error) {
	o := manager.NetworkOptions{
		Name: name, Driver: n.driver, IPv6: n.ipv6, Internal: n.internal, Attachable: n.attachable,
		Options: keyed(n.opts), Labels: keyed(n.labels),
	}
	if n.ipam != "default" {
		return o, &unsupportedFlagError{name: "ipam-driver", value: n.ipam}
	}
	var err error
	o.Pools, err = n.pools()
	return o, err
}

// pools puts ranges, gateways and other addresses to the subnets that they are of.
func (n networkCreateFlags) pools() ([]manager.NetworkPool, error) {
	if len(n.subnets) < len(n.ranges) || len(n.subnets) < len(n.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	var pools []manager.NetworkPool
	for _, s := range n.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: invalid CIDR block notation", s)
		}
		if slices.ContainsFunc(pools, func(o manager.NetworkPool) bool { return o.Subnet.Overlaps(p) }) {
			return nil, errors.New("multiple overlapping subnet configuration is not supported")
		}
		pools = append(pools, manager.NetworkPool{Subnet: p})
	}
	for _, r := range n.ranges {
		within, err := netip.ParsePrefix(r)
		p := poolOf(pools, within.Addr())
		if err != nil || p == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", r)
		}
		if p.Range.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, p.Range, p.Subnet)
		}
		p.Range = within
	}
	for _, g := range n.gateways {
		gateway, err := netip.ParseAddr(g)
		p := poolOf(pools, gateway)
		if err != nil || p == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", g)
		}
		if p.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, p.Gateway, p.Subnet)
		}
		p.Gateway = gateway
	}
	return pools, n.reserve(pools)
}

func (n networkCreateFlags) reserve(pools []manager.NetworkPool) error {
	for _, aux := range n.aux {
		name, text, _ := strings.Cut(aux, "=")
		addr, err := netip.ParseAddr(text)
		p := poolOf(pools, addr)
		if err != nil || p == nil {
			return fmt.Errorf("no matching subnet for aux-address %s", text)
		}
		if p.Reserved == nil {
			p.Reserved = map[string]netip.Addr{}
		}
		p.Reserved[name] = addr
	}
	return nil
}

// poolOf is the pool that an address is of, nil for none.
func poolOf(pools []manager.NetworkPool, a netip.Addr) *manager.NetworkPool {
	i := slices.IndexFunc(pools, func(p manager.NetworkPool) bool { return p.Subnet.Contains(a) })
	if i < 0 {
		return nil
	}
	return &pools[i]
}
