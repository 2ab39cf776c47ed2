package main

import "github.com/spf13/cobra"

func newTagCommand(a *app) *cobra.Command {
	c := newVerb("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", arguments(2, 2), nil)
	c.ValidArgsFunction = a.completeImages(2)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		return m.TagImage(c.Context(), args[0], args[1])
	}
	return c
}
