package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/micropod/micropod/pkg/manager"
)

func newDiffCommand(a *app) *cobra.Command {
	c := newVerb("diff CONTAINER", "Inspect changes to files or directories on a container's filesystem", arguments(1, 1), nil)
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		return m.Changes(c.Context(), args[0], func(change manager.Change) error {
			_, err := fmt.Fprintf(a.out, "%c %s\n", change.Kind(), escape(change.Path()))
			return err
		})
	}
	return c
}

func newExportCommand(a *app) *cobra.Command {
	var output string
	c := newVerb("export [OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", arguments(1, 1), nil)
	c.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error { return a.export(c.Context(), args[0], output) }
	return c
}

func (a *app) export(ctx context.Context, ref, output string) error {
	return a.writeArchive(output, func(m *manager.Manager, w io.Writer) error { return m.Export(ctx, ref, w) })
}
