package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newWaitCommand(a *app) *cobra.Command {
	var condition string
	conditions := []string{string(manager.WaitNotRunning), string(manager.WaitNextExit), string(manager.WaitRemoved)}
	c := newVerb("wait [OPTIONS] CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes", arguments(1, -1), nil)
	c.Flags().StringVar(&condition, "condition", conditions[0], "What to wait for (not-running, next-exit, removed)")
	registerValues(c, "condition", conditions...)
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(conditions, condition) {
			return usage(c, fmt.Errorf("invalid condition %q: must be one of %v", condition, conditions))
		}
		m, err := a.manager()
		if err != nil {
			return err
		}
		return a.eachValue(c.Context(), args, func(ctx context.Context, ref string) (string, error) {
			code, err := m.Wait(ctx, ref, manager.WaitCondition(condition))
			return strconv.Itoa(code), err
		})
	}
	return c
}
