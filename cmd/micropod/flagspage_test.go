package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const flagsPage = "../../docs/flags.md"

const flagsIntro = `# Docker's commands and flags

What MicroPod has of docker's command line, and what it refuses. A test compares
both with the flags of docker's client 28: each of its flags either works, with
docker's shorthand and type, or is refused by name. None is ignored.

This page is written by that test:

` + "```sh self\nmake docs\n```\n"

// refusedFlag is a flag of docker's that some commands refuse.
type refusedFlag struct {
	flag, why string
	commands  []string
}

// TestFlagsPage keeps docs/flags.md what the code says; with MICROPOD_UPDATE it
// writes it.
func TestFlagsPage(t *testing.T) {
	page := flagsMarkdown(t)
	if os.Getenv("MICROPOD_UPDATE") != "" {
		if err := os.WriteFile(flagsPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(flagsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != page {
		t.Errorf("docs/flags.md is not what the code says: make docs")
	}
}

func flagsMarkdown(t *testing.T) string {
	t.Helper()
	root := newRootCommand(&app{}, nil)
	var b strings.Builder
	b.WriteString(flagsIntro + "\n## Supported\n\n| Command | Docker's flags |\n|---|---|\n")
	var refused []refusedFlag
	var missing []string
	for _, d := range dockerCommands(t) {
		c := sameCommand(root, d.Name)
		if c == nil {
			missing = append(missing, d.Name)
			continue
		}
		var flags []string
		for _, f := range d.Flags {
			if u, ok := c.Flags().Lookup(f.Name).Value.(*unsupported); ok {
				refused = addRefused(refused, d.Name, u.flag)
			} else if f.Name != "help" {
				flags = append(flags, spelled(f.Shorthand, f.Name))
			}
		}
		fmt.Fprintf(&b, "| `micropod %s` | %s |\n", d.Name, cmp.Or(strings.Join(flags, ", "), "none"))
	}
	b.WriteString("\n## In part\n\nFlags of `micropod run` and `micropod create` that take some values only, in the words\nof their help:\n\n| Flag | Help |\n|---|---|\n")
	for _, f := range partly(sameCommand(root, "run")) {
		fmt.Fprintf(&b, "| `--%s` | %s |\n", f.Name, f.Usage)
	}
	b.WriteString("\n## Refused\n\n| Flag | Commands | Reason |\n|---|---|---|\n")
	slices.SortStableFunc(refused, func(a, b refusedFlag) int { return cmp.Compare(a.flag, b.flag) })
	for _, r := range refused {
		fmt.Fprintf(&b, "| `--%s` | %s | %s |\n", r.flag, strings.Join(r.commands, ", "), r.why)
	}
	b.WriteString("\n## Commands\n\nNot there yet: " + strings.Join(append(missing, refusedVerbs(root)...), ", ") + ".\n")
	return b.String()
}

// partly are the flags whose help says that they do less than docker's.
func partly(c *cobra.Command) []*pflag.Flag {
	var flags []*pflag.Flag
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if strings.Contains(f.Usage, "(only") || strings.Contains(f.Usage, "only)") {
			flags = append(flags, f)
		}
	})
	return flags
}

func spelled(shorthand, name string) string {
	if shorthand != "" {
		return "`-" + shorthand + "`, `--" + name + "`"
	}
	return "`--" + name + "`"
}

func addRefused(all []refusedFlag, command string, f dockerFlag) []refusedFlag {
	flag, why := f.name, cmp.Or(f.why, "not yet")
	for i, r := range all {
		if r.flag == flag && r.why == why {
			all[i].commands = append(r.commands, command)
			return all
		}
	}
	return append(all, refusedFlag{flag, why, []string{command}})
}

// refusedVerbs are those that are not in the list of flags.
func refusedVerbs(root *cobra.Command) []string {
	return slices.DeleteFunc(unsupportedVerbs(), func(verb string) bool {
		return sameCommand(root, verb) != nil
	})
}
