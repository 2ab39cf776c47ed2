package main

import (
	"context"
	"syscall"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newKillCommand(a *app) *cobra.Command {
	var signal string
	c := newVerb("kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", arguments(1, -1), nil)
	c.Flags().StringVarP(&signal, "signal", "s", "KILL", "Signal to send to the container")
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning, manager.StatePaused, manager.StateRestarting)
	c.RunE = func(c *cobra.Command, args []string) error {
		sig, err := parseSignal(signal)
		if err != nil {
			return err
		}
		m, err := a.manager()
		if err != nil {
			return err
		}
		return a.each(c.Context(), args, func(ctx context.Context, ref string) error {
			return m.Kill(ctx, ref, syscall.Signal(sig))
		})
	}
	return c
}
