package main

import (
	"context"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newPauseCommand(a *app) *cobra.Command {
	c := newVerb("pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", arguments(1, -1), nil)
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning)
	c.RunE = func(c *cobra.Command, args []string) error { return a.managerEach(c, args, (*manager.Manager).Pause) }
	return c
}

func newUnpauseCommand(a *app) *cobra.Command {
	c := newVerb("unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", arguments(1, -1), nil)
	c.ValidArgsFunction = a.completeContainers(manager.StatePaused)
	c.RunE = func(c *cobra.Command, args []string) error { return a.managerEach(c, args, (*manager.Manager).Unpause) }
	return c
}

// managerEach runs a method of the manager for every argument.
func (a *app) managerEach(c *cobra.Command, args []string, do func(*manager.Manager, context.Context, string) error) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	return a.each(c.Context(), args, func(ctx context.Context, ref string) error { return do(m, ctx, ref) })
}
