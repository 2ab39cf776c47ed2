package main

import (
	"context"
	"errors"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newRemoveCommand(a *app) *cobra.Command {
	var force bool
	c := newVerb("rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", arguments(1, -1), nil)
	f := c.Flags()
	f.BoolVarP(&force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	// There are no volumes yet, so that removing them is always done.
	f.BoolP("volumes", "v", false, "Remove anonymous volumes associated with the container")
	refuse(f, []dockerFlag{{name: "link", shorthand: "l", neutral: "false"}})
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		return a.eachValue(c.Context(), args, func(ctx context.Context, ref string) (string, error) {
			err := m.Remove(ctx, ref, force)
			if force && errors.Is(err, manager.ErrNotFound) {
				// What -f asks for is that it is gone: said, but no failure.
				a.printError(err)
				return "", nil
			}
			return ref, err
		})
	}
	return c
}
