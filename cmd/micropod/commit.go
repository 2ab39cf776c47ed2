package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/micropod/micropod/pkg/manager"
)

func newCommitCommand(a *app) *cobra.Command {
	var o manager.CommitOptions
	c := newVerb("commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes", arguments(1, 2), nil)
	f := c.Flags()
	f.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	f.VarP(newChecked(&o.Changes, "list", unchecked), "change", "c", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&o.Message, "message", "m", "", "Commit message")
	f.BoolVarP(&o.Pause, "pause", "p", true, "Pause container during commit")
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 2 {
			o.Name = args[1]
		}
		m, err := a.manager()
		if err != nil {
			return err
		}
		id, err := m.Commit(c.Context(), args[0], o)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, escape(id))
		return err
	}
	return c
}
