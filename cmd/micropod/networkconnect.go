package main

import (
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newNetworkConnectCommand(a *app) *cobra.Command {
	var aliases []string
	var ip, ip6 string
	c := newVerb("connect [OPTIONS] NETWORK CONTAINER", "Connect a container to a network", arguments(2, 2), nil)
	f := c.Flags()
	f.StringSliceVar(&aliases, "alias", nil, "Add network-scoped alias for the container")
	f.StringVar(&ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	f.StringVar(&ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	refuse(f, []dockerFlag{
		valued("driver-opt", ""), {name: "gw-priority", takesValue: true, neutral: "0"},
		{name: "link", takesValue: true, why: noLinks}, valued("link-local-ip", ""),
	})
	c.ValidArgsFunction = a.completeNetworks(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		to := manager.NetworkAttachment{Network: args[0], Aliases: aliases}
		if err := chooseAddresses(&to, ip, ip6); err != nil {
			return err
		}
		m, err := a.manager()
		if err != nil {
			return err
		}
		return m.ConnectNetwork(c.Context(), args[1], to)
	}
	return c
}

func newNetworkDisconnectCommand(a *app) *cobra.Command {
	var force bool
	c := newVerb("disconnect [OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network", arguments(2, 2), nil)
	c.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the container does not exist")
	c.ValidArgsFunction = a.completeNetworks(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		return m.DisconnectNetwork(c.Context(), args[1], args[0], force)
	}
	return c
}
