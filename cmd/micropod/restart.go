package main

import (
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newRestartCommand(a *app) *cobra.Command {
	var flags stopFlags
	c := newVerb("restart [OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", arguments(1, -1), nil)
	flags.register(c.Flags())
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.endEach(c, args, &flags, (*manager.Manager).Restart)
	}
	return c
}
