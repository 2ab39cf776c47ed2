package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/pflag"
)

// logFlags say where the output of a container is kept.
type logFlags struct {
	logDriver string
	logOpts   []string
}

func (l *logFlags) register(f *pflag.FlagSet) {
	f.StringVar(&l.logDriver, "log-driver", "", "Logging driver for the container (local, json-file, journald, none)")
	f.Var(newChecked(&l.logOpts, "list", unchecked), "log-opt", "Log driver options (key=value)")
}

// otherDrivers are docker's logging drivers that MicroPod does not have.
func otherDrivers() []string {
	return []string{"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "splunk", "syslog"}
}

// logConfig turns what was typed into the manager's words, which knows the
// options of each driver.
func (l *logFlags) logConfig(o *manager.CreateOptions) error {
	if slices.Contains(otherDrivers(), l.logDriver) {
		return &unsupportedFlagError{name: "log-driver", value: l.logDriver}
	}
	if l.logDriver == "none" && len(l.logOpts) > 0 {
		return fmt.Errorf("invalid logging opts for driver %s", l.logDriver)
	}
	c := manager.LogConfig{Type: l.logDriver}
	for _, opt := range l.logOpts {
		if c.Config == nil {
			c.Config = map[string]string{}
		}
		k, v, _ := strings.Cut(opt, "=")
		c.Config[k] = v
	}
	o.HostConfig.LogConfig = c
	return nil
}
