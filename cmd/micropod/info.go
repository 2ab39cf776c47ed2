package main

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newInfoCommand(a *app) *cobra.Command {
	var format string
	c := newVerb("info [OPTIONS]", "Display system-wide information", arguments(0, 0), nil)
	c.Flags().StringVarP(&format, "format", "f", "", `Format output: "json" or a Go template`)
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		info, err := m.Info(c.Context())
		if err != nil {
			return err
		}
		return writeValue(a.out, format, info, infoText(info))
	}
	return c
}

func infoText(i *manager.Info) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		for n, v := range args {
			if s, ok := v.(string); ok {
				args[n] = escape(s)
			}
		}
		fmt.Fprintf(&b, format+"\n", args...)
	}
	line("Version: %s", version)
	line("Containers: %d", i.Containers)
	line(" Running: %d", i.Running)
	line(" Paused: %d", i.Paused)
	line(" Stopped: %d", i.Stopped)
	line("Images: %d", i.Images)
	line("Root Dir: %s", i.Root)
	line("Default VMM: %s", orNone(i.DefaultVMM))
	line("VMMs:")
	for _, v := range i.VMMs {
		line(" %s", v.Name)
		line("  Version: %s", orNone(v.Version))
		line("  Acceleration: %s", orNone(v.Accel))
		line("  Reason: %s", orNone(v.Reason))
	}
	line("Guest Kernel: %s", orNone(i.Kernel))
	line(" Release: %s", orNone(i.KernelRelease))
	line("Image Disks: %s", orNone(i.DiskFormat))
	line("OSType: %s", i.OSType)
	line("Architecture: %s", i.Architecture)
	line("CPUs: %d", i.CPUs)
	line("Total Memory: %s", units.BytesSize(float64(i.MemoryBytes)))
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
