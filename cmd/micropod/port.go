package main

import (
	"fmt"
	"strings"

	"github.com/docker/go-connections/nat"
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
		container, err := m.Inspect(c.Context(), args[0])
		if err != nil {
			return err
		}
		ports := portMap(publishedPorts(container), false)
		if len(args) == 2 {
			return a.printPort(ports, args[0], args[1])
		}
		for _, p := range sortedPorts(ports) {
			for _, at := range ports[p] {
				fmt.Fprintf(a.out, "%s -> %s\n", p, at)
			}
		}
		return nil
	}
	return c
}

// printPort prints where one port of the guest is published.
func (a *app) printPort(ports map[string][]portView, container, port string) error {
	number, proto, ok := strings.Cut(port, "/")
	if !ok {
		proto = "tcp"
	}
	key, err := nat.NewPort(proto, number)
	if err != nil {
		return fmt.Errorf("invalid port (%s): must be a number of at most 65535", port)
	}
	found := ports[string(key)]
	if len(found) == 0 {
		return fmt.Errorf("no public port '%s' published for %s", port, container)
	}
	for _, at := range found {
		fmt.Fprintln(a.out, at)
	}
	return nil
}
