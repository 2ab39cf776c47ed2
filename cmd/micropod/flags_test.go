package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// dockerCommand is one of docker's, by test/dockerflags.
type dockerCommand struct {
	Name  string `json:"name"`
	Flags []struct {
		Name      string `json:"name"`
		Shorthand string `json:"shorthand"`
		Type      string `json:"type"`
	} `json:"flags"`
}

func dockerCommands(t *testing.T) []dockerCommand {
	t.Helper()
	text, err := os.ReadFile("testdata/docker-flags.json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Commands []dockerCommand `json:"commands"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Commands) < 40 {
		t.Fatalf("the list holds %d commands only", len(list.Commands))
	}
	return list.Commands
}

// sameCommand is our command of that name, nil if there is none.
func sameCommand(root *cobra.Command, name string) *cobra.Command {
	c, rest, err := root.Find(strings.Fields(name))
	if err != nil || len(rest) > 0 || c == root {
		return nil
	}
	c.InitDefaultHelpFlag()
	return c
}

// TestDockerFlags holds our commands to docker's: every flag that docker has is
// either ours, with the same shorthand and type, or refused by its name.
func TestDockerFlags(t *testing.T) {
	root := newRootCommand(&app{}, nil)
	for _, d := range dockerCommands(t) {
		c := sameCommand(root, d.Name)
		if c == nil {
			t.Errorf("docker's %q is not there", d.Name)
			continue
		}
		for _, f := range d.Flags {
			flag := c.Flags().Lookup(f.Name)
			if flag == nil {
				t.Errorf("%s: docker's --%s is neither known nor refused", d.Name, f.Name)
				continue
			}
			if flag.Shorthand != f.Shorthand {
				t.Errorf("%s --%s: shorthand %q, docker has %q", d.Name, f.Name, flag.Shorthand, f.Shorthand)
			}
			if isValue := flag.NoOptDefVal == ""; isValue != (f.Type != "") {
				t.Errorf("%s --%s: docker's type is %q", d.Name, f.Name, f.Type)
			}
			// What is refused needs no type.
			if _, refused := flag.Value.(*unsupported); refused {
				continue
			}
			if kind, _ := pflag.UnquoteUsage(flag); kind != f.Type {
				t.Errorf("%s --%s: type %q, docker has %q", d.Name, f.Name, kind, f.Type)
			}
		}
	}
}

// TestRefusedFlags checks that refusing is not ignoring: no refused flag has a
// place in the code that reads it, so setting it must fail.
func TestRefusedFlags(t *testing.T) {
	for _, verb := range []string{"run", "create"} {
		for _, d := range unsupportedCreateFlags() {
			c, _, err := newRootCommand(&app{}, nil).Find([]string{verb})
			if err != nil {
				t.Fatal(err)
			}
			value := "x"
			if !d.takesValue {
				value = "true"
				if d.neutral == "true" {
					value = "false"
				}
			}
			err = c.ParseFlags([]string{"--" + d.name + "=" + value, "busybox"})
			if err == nil {
				t.Errorf("%s --%s=%s was accepted", verb, d.name, value)
				continue
			}
			reason := " yet"
			if d.why != "" {
				reason = ": " + d.why
			}
			if got := flagError(c, err).Error(); !strings.HasPrefix(got, "--"+d.name) || !strings.HasSuffix(got, "is not supported"+reason) {
				t.Errorf("%s --%s: %q", verb, d.name, got)
			}
			if d.neutral != "" {
				if err := c.ParseFlags([]string{"--" + d.name + "=" + d.neutral, "busybox"}); err != nil {
					t.Errorf("%s --%s=%s, which asks for nothing: %v", verb, d.name, d.neutral, err)
				}
			}
		}
	}
}

// TestNeverFlags: a reason without a flag that is refused is left over.
func TestNeverFlags(t *testing.T) {
	for name := range neverFlags() {
		if !slices.ContainsFunc(unsupportedCreateFlags(), func(d dockerFlag) bool { return d.name == name }) {
			t.Errorf("--%s has a reason to be refused, and is not", name)
		}
	}
}

// TestVerbs checks that no verb of docker's is both here and refused, and that
// each of ours is documented.
func TestVerbs(t *testing.T) {
	root := newRootCommand(&app{}, nil)
	for _, verb := range unsupportedVerbs() {
		if c, _, err := root.Find([]string{verb}); err == nil && c != root {
			t.Errorf("%s is refused, and exists", verb)
		}
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" && !c.Hidden {
			t.Errorf("%s has no description", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}
