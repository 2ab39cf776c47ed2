package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newPortCommand(a *app) *cobra.Command {
	c := newVerb("port CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container", arguments(1, 2), nil)
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		if _, err := m.Inspect(c.Context(), args[0]); err != nil || len(args) == 1 {
			return err // nothing is published, so that there is nothing to print
		}
		number, _, _ := strings.Cut(args[1], "/")
		if _, err := strconv.ParseUint(number, 10, 16); err != nil {
			return fmt.Errorf("invalid port (%s): must be a number of at most 65535", args[1])
		}
		return fmt.Errorf("no public port '%s' published for %s", args[1], args[0])
	}
	return c
}
