package main

import (
	"github.com/spf13/cobra"
)

func newRenameCommand(a *app) *cobra.Command {
	c := newVerb("rename CONTAINER NEW_NAME", "Rename a container", arguments(2, 2), nil)
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		return m.Rename(args[0], args[1])
	}
	return c
}
