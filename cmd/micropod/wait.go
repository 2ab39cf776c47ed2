package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
)

func newWaitCommand(a *app) *cobra.Command {
	c := newVerb("wait CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes", arguments(1, -1), nil)
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		return a.eachValue(c.Context(), args, func(ctx context.Context, ref string) (string, error) {
			code, err := m.Wait(ctx, ref)
			return strconv.Itoa(code), err
		})
	}
	return c
}
