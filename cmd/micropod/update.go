package main

import (
	"context"
	"errors"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type updateFlags struct {
	cpus                           cpusValue
	memory                         memoryValue
	memoryReservation              sizeValue
	memorySwap                     swapValue
	cpuShares, cpuPeriod, cpuQuota int64
	cpusetCPUs, restart            string
	pidsLimit                      int64
}

func newUpdateCommand(a *app) *cobra.Command {
	var flags updateFlags
	c := newVerb("update [OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers", arguments(1, -1), nil)
	f := c.Flags()
	f.Int64Var(&flags.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period, in the guest")
	f.Int64Var(&flags.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota, in the guest")
	f.Int64VarP(&flags.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight), in the guest")
	f.Var(&flags.cpus, "cpus", "Number of CPUs; while it runs, at most those of the microVM")
	f.StringVar(&flags.cpusetCPUs, "cpuset-cpus", "", "Virtual CPUs in which to allow execution (0-3, 0,1)")
	f.VarP(&flags.memory, "memory", "m", "Memory limit; while it runs, at most the memory of the microVM")
	f.Var(&flags.memoryReservation, "memory-reservation", "Memory soft limit, in the guest")
	f.Var(&flags.memorySwap, "memory-swap", "Memory and swap together: the memory, or -1, since a guest has no swap")
	f.Int64Var(&flags.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.StringVar(&flags.restart, "restart", "", "Restart policy to apply when a container exits")
	refuse(f, []dockerFlag{
		valued("blkio-weight", ""), valued("cpu-rt-period", ""), valued("cpu-rt-runtime", ""), valued("cpuset-mems", ""),
	})
	registerValues(c, "restart", "no", "on-failure", "always", "unless-stopped")
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().NFlag() == 0 {
			return errors.New("you must provide one or more flags when using this command")
		}
		o, err := flags.options(c.Flags())
		if err != nil {
			return err
		}
		m, err := a.manager()
		if err != nil {
			return err
		}
		return a.each(c.Context(), args, func(ctx context.Context, ref string) error { return m.Update(ctx, ref, o) })
	}
	return c
}

func (u *updateFlags) options(f *pflag.FlagSet) (manager.UpdateOptions, error) {
	o := manager.UpdateOptions{
		CPUs: float64(u.cpus), MemoryBytes: int64(u.memory), MemoryReservation: int64(u.memoryReservation),
		CPUShares: u.cpuShares, CPUPeriod: u.cpuPeriod, CPUQuota: u.cpuQuota, CPUSetCPUs: u.cpusetCPUs,
	}
	if f.Changed("pids-limit") {
		o.PidsLimit = &u.pidsLimit
	}
	if u.restart != "" {
		p, err := parseRestart(u.restart)
		if err != nil {
			return o, err
		}
		o.RestartPolicy = &p
	}
	return o, u.memorySwap.check(o.MemoryBytes)
}
