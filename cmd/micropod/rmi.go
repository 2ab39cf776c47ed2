package main

import (
	"errors"
	"fmt"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newRemoveImageCommand(a *app) *cobra.Command {
	var force bool
	c := newVerb("rmi [OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", arguments(1, -1), nil)
	f := c.Flags()
	f.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	// Images have no untagged parents here: nothing is left to keep.
	f.Bool("no-prune", false, "Do not delete untagged parents")
	refuse(f, []dockerFlag{valued("platform", "")})
	c.ValidArgsFunction = a.completeImages(-1)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		var failed error
		for _, ref := range args {
			untagged, deleted, err := m.RemoveImage(c.Context(), ref, force)
			for _, name := range untagged {
				fmt.Fprintf(a.out, "Untagged: %s\n", escape(familiarName(name)))
			}
			for _, id := range deleted {
				fmt.Fprintf(a.out, "Deleted: %s\n", escape(id))
			}
			if err == nil {
				continue
			}
			if c.Context().Err() != nil {
				return err
			}
			a.printError(err)
			if !force || !errors.Is(err, manager.ErrNotFound) {
				failed = &exitError{code: exitFailure}
			}
		}
		return failed
	}
	return c
}
