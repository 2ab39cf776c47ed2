package main

import (
	"fmt"
	"slices"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newCompletionCommand() *cobra.Command {
	shells := []string{"bash", "fish", "powershell", "zsh"}
	c := newVerb("completion bash|fish|powershell|zsh", "Print the completion script for a shell", arguments(1, 1), nil)
	c.ValidArgs = shells
	c.RunE = func(c *cobra.Command, args []string) error {
		root, out := c.Root(), c.OutOrStdout()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(out, true)
		case "fish":
			return root.GenFishCompletion(out, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(out)
		case "zsh":
			return root.GenZshCompletion(out)
		}
		return usage(c, fmt.Errorf("unknown shell %q: must be one of %v", args[0], shells))
	}
	return c
}

type completion func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeContainers offers names and ids of the containers in one of the states.
func (a *app) completeContainers(states ...manager.State) completion {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		m, err := a.completing()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		containers, err := m.List(c.Context(), manager.ListOptions{All: true})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, k := range containers {
			if len(states) > 0 && !slices.Contains(states, k.State) {
				continue
			}
			for _, ref := range []string{k.Name, shortID(k.ID)} {
				if ref != "" && !slices.Contains(args, ref) {
					out = append(out, escape(ref))
				}
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages offers the images' names for the first most arguments, negative
// for all of them.
func (a *app) completeImages(most int) completion {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveDefault
		}
		m, err := a.completing()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		images, _, err := m.Images(c.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, i := range images {
			for _, name := range i.Names {
				out = append(out, escape(familiarName(name)))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completing opens the manager for a completion, before which no hook has run.
func (a *app) completing() (*manager.Manager, error) {
	if err := a.setUp(); err != nil {
		return nil, err
	}
	return a.manager()
}

// registerValues completes a flag that takes one of a few words.
func registerValues(c *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that does not exist: a programming error that the
	// tests, which build every command, would show as a missing completion.
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
