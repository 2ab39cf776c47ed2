package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/pflag"
)

// healthFlags are the health check of a container, over the image's HEALTHCHECK.
type healthFlags struct {
	healthCmd                                  string
	interval, timeout, startPeriod, startEvery time.Duration
	retries                                    int
	noHealthcheck                              bool
}

func (h *healthFlags) register(f *pflag.FlagSet) {
	f.StringVar(&h.healthCmd, "health-cmd", "", "Command to run to check health")
	f.DurationVar(&h.interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	f.IntVar(&h.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.DurationVar(&h.startEvery, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	f.DurationVar(&h.startPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	f.DurationVar(&h.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	f.BoolVar(&h.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

// healthcheck turns what was typed into the manager's words.
func (h *healthFlags) healthcheck(o *manager.CreateOptions) error {
	c := manager.Healthcheck{
		Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod, StartInterval: h.startEvery, Retries: h.retries,
	}
	if h.healthCmd != "" {
		c.Test = []string{"CMD-SHELL", h.healthCmd}
	}
	given := h.healthCmd != "" || h.interval != 0 || h.timeout != 0 || h.startPeriod != 0 || h.startEvery != 0 || h.retries != 0
	switch {
	case h.noHealthcheck && given:
		return errors.New("--no-healthcheck conflicts with --health-* options")
	case h.noHealthcheck:
		c.Test = []string{"NONE"}
	case !given:
		return nil
	}
	for _, d := range []struct {
		flag     string
		negative bool
	}{
		{"interval", h.interval < 0}, {"timeout", h.timeout < 0}, {"retries", h.retries < 0},
		{"start-period", h.startPeriod < 0}, {"start-interval", h.startEvery < 0},
	} {
		if d.negative {
			return fmt.Errorf("--health-%s cannot be negative", d.flag)
		}
	}
	o.Healthcheck = &c
	return nil
}
