package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newNetworkInspectCommand(a *app) *cobra.Command {
	var format string
	c := newVerb("inspect [OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks", arguments(1, -1), nil)
	f := c.Flags()
	f.StringVarP(&format, "format", "f", "", `Format output: "json" or a Go template`)
	f.BoolP("verbose", "v", false, "Verbose output for diagnostics (there is none of a bridge, as in docker)")
	c.ValidArgsFunction = a.completeNetworks(-1)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.inspect(c.Context(), args, kindNetwork, format, "")
	}
	return c
}

// networkView is a network in docker's shape.
type networkView struct {
	Name                   string
	ID                     string `json:"Id"`
	Created, Scope, Driver string
	EnableIPv4, EnableIPv6 bool
	IPAM                   ipamView

	Internal, Attachable, Ingress bool
	ConfigFrom                    configFromView
	ConfigOnly                    bool
	Containers                    map[string]memberView
	Options, Labels               map[string]string
}

type ipamView struct {
	Driver  string
	Options map[string]string
	Config  []poolView
}

type poolView struct {
	Subnet             string
	IPRange            string            `json:",omitempty"`
	Gateway            string            `json:",omitempty"`
	AuxiliaryAddresses map[string]string `json:",omitempty"`
}

type configFromView struct{ Network string }

type memberView struct{ Name, EndpointID, MacAddress, IPv4Address, IPv6Address string }

func inspectNamedNetwork(ctx context.Context, m *manager.Manager, ref string) (any, error) {
	n, err := m.InspectNetwork(ctx, ref)
	if err != nil {
		return nil, err
	}
	v := networkView{
		Name: n.Name, ID: n.ID, Created: inspectTime(n.Created), Scope: "local", Driver: n.Driver,
		EnableIPv4: n.Name != manager.NetworkNone, EnableIPv6: n.IPv6, IPAM: ipamView{Driver: "default", Config: []poolView{}},
		Internal: n.Internal, Attachable: n.Attachable, Containers: map[string]memberView{},
		Options: notNil(n.Options), Labels: notNil(n.Labels),
	}
	for _, p := range n.Pools {
		v.IPAM.Config = append(v.IPAM.Config, inspectPool(p))
	}
	for _, c := range n.Members {
		v.Containers[c.ID] = memberView{
			Name: c.Name, EndpointID: endpointID(n.ID, c.ID), MacAddress: c.MAC,
			IPv4Address: prefixText(c.Address), IPv6Address: prefixText(c.Address6),
		}
	}
	return v, nil
}

func inspectPool(p manager.NetworkPool) poolView {
	v := poolView{Subnet: p.Subnet.String(), IPRange: prefixText(p.Range), Gateway: p.Gateway.String()}
	for name, a := range p.Reserved {
		if v.AuxiliaryAddresses == nil {
			v.AuxiliaryAddresses = map[string]string{}
		}
		v.AuxiliaryAddresses[name] = a.String()
	}
	return v
}

// prefixText is "" for none.
func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// endpointID is one that docker's users can tell two endpoints apart by.
func endpointID(network, container string) string {
	sum := sha256.Sum256([]byte(network + container))
	return hex.EncodeToString(sum[:])
}
