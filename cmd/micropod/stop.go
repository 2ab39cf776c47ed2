package main

import (
	"context"
	"math"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newStopCommand(a *app) *cobra.Command {
	var flags stopFlags
	c := newVerb("stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", arguments(1, -1), nil)
	flags.register(c.Flags())
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning, manager.StatePaused, manager.StateRestarting)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.endEach(c, args, &flags, (*manager.Manager).Stop)
	}
	return c
}

// stopFlags are those of `stop` and `restart`.
type stopFlags struct {
	signal  string
	timeout int
}

func (s *stopFlags) register(f *pflag.FlagSet) {
	f.StringVarP(&s.signal, "signal", "s", "", "Signal to send to the container")
	f.IntVarP(&s.timeout, "timeout", "t", 0, "Seconds to wait before killing the container (-1: for ever)")
	// docker's older name of the flag.
	f.IntVar(&s.timeout, "time", 0, "")
	f.Lookup("time").Hidden = true
}

// endEach runs stop, or restart, for every argument.
func (a *app) endEach(c *cobra.Command, args []string, flags *stopFlags, stop func(*manager.Manager, context.Context, string, *time.Duration, string) error) error {
	if flags.signal != "" {
		if _, err := parseSignal(flags.signal); err != nil {
			return err
		}
	}
	var timeout *time.Duration
	if c.Flags().Changed("timeout") || c.Flags().Changed("time") {
		timeout = grace(flags.timeout)
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	return a.each(c.Context(), args, func(ctx context.Context, ref string) error {
		return stop(m, ctx, ref, timeout, flags.signal)
	})
}

// grace is a number of seconds. Less than none is for ever, and so is what no
// clock of ours can count.
func grace(seconds int) *time.Duration {
	t := time.Duration(math.MaxInt64)
	switch {
	case seconds < 0:
		t = -time.Second
	case seconds <= math.MaxInt64/int(time.Second):
		t = time.Duration(seconds) * time.Second
	}
	return &t
}
