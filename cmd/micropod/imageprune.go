package main

import (
	"context"
	"fmt"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newImagePruneCommand(a *app) *cobra.Command {
	var flags pruneFlags
	var all bool
	c := newVerb("prune [OPTIONS]", "Remove unused images", arguments(0, 0), nil)
	f := c.Flags()
	f.BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	flags.register(f)
	c.RunE = func(c *cobra.Command, _ []string) error {
		filters, err := flags.read(map[string][]string{
			"until": nil, "label": nil, "label!": nil, "dangling": {"true", "false", "1", "0"},
		})
		if err != nil {
			return err
		}
		for _, d := range filters.values["dangling"] {
			all = d == "false" || d == "0"
		}
		sure, err := a.confirm(c.Context(), flags.force, "WARNING! This will remove "+imagesToGo(all)+".")
		if err != nil || !sure {
			return err
		}
		done, err := a.pruneImages(c.Context(), all, filters)
		a.printImages(done)
		a.printReclaimed(done.Freed)
		return err
	}
	return c
}

// imagesToGo is what an answer of yes removes.
func imagesToGo(all bool) string {
	if all {
		return "all images without at least one container associated to them"
	}
	return "all dangling images"
}

func (a *app) pruneImages(ctx context.Context, all bool, filters pruneFilters) (manager.PrunedImages, error) {
	m, err := a.manager()
	if err != nil {
		return manager.PrunedImages{}, err
	}
	return m.PruneImages(ctx, func(i manager.Image) bool {
		return filters.match(i.Created, i.Config.Config.Labels) && (all || len(i.Names) == 0)
	})
}

// printImages says what is gone, after an error too.
func (a *app) printImages(done manager.PrunedImages) {
	if len(done.Untagged)+len(done.Deleted) == 0 {
		return
	}
	fmt.Fprintln(a.out, "Deleted Images:")
	for _, name := range done.Untagged {
		fmt.Fprintf(a.out, "untagged: %s\n", escape(familiarName(name)))
	}
	for _, id := range done.Deleted {
		fmt.Fprintf(a.out, "deleted: %s\n", escape(id))
	}
	fmt.Fprintln(a.out)
}
