package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newNetworkRemoveCommand(a *app) *cobra.Command {
	var force bool
	c := newVerb("rm NETWORK [NETWORK...]", "Remove one or more networks", arguments(1, -1), nil)
	c.Aliases = []string{"remove"}
	c.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	c.ValidArgsFunction = a.completeNetworks(-1)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		return a.eachValue(c.Context(), args, func(ctx context.Context, ref string) (string, error) {
			err := m.RemoveNetwork(ctx, ref)
			if force && errors.Is(err, manager.ErrNotFound) {
				return "", nil
			}
			return ref, err
		})
	}
	return c
}

func newNetworkPruneCommand(a *app) *cobra.Command {
	var flags pruneFlags
	c := newVerb("prune [OPTIONS]", "Remove all unused networks", arguments(0, 0), nil)
	flags.register(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		filters, err := flags.read(ageAndLabels())
		if err != nil {
			return err
		}
		sure, err := a.confirm(c.Context(), flags.force, "WARNING! This will remove all custom networks not used by at least one container.")
		if err != nil || !sure {
			return err
		}
		return a.pruneNetworks(c.Context(), filters)
	}
	return c
}

// pruneNetworks removes what nobody uses and says so, after an error too.
func (a *app) pruneNetworks(ctx context.Context, filters pruneFilters) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	done, err := m.PruneNetworks(ctx, func(n manager.NamedNetwork) bool { return filters.match(n.Created, n.Labels) })
	if len(done) > 0 {
		fmt.Fprintf(a.out, "Deleted Networks:\n%s\n\n", strings.Join(done, "\n"))
	}
	return err
}
