package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestDockerFlags holds our verbs to docker's: every flag that docker has is
// either ours, with the same shorthand and kind, or refused by its name.
func TestDockerFlags(t *testing.T) {
	list, err := os.ReadFile("testdata/docker-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	root := newRootCommand(&app{})
	seen := 0
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(f) != 4 {
			continue
		}
		seen++
		verb, name, shorthand, kind := f[0], f[1], strings.TrimPrefix(f[2], "-"), f[3]
		c, rest, err := root.Find(strings.Split(verb, "/"))
		if err != nil || len(rest) > 0 {
			t.Fatalf("there is no %s: %v", verb, err)
		}
		c.InitDefaultHelpFlag()
		flag := c.Flags().Lookup(name)
		if flag == nil {
			t.Errorf("%s: docker's --%s is neither known nor refused", verb, name)
			continue
		}
		if flag.Shorthand != shorthand {
			t.Errorf("%s --%s: shorthand %q, docker has %q", verb, name, flag.Shorthand, shorthand)
		}
		if isValue := flag.NoOptDefVal == ""; isValue != (kind == "value") {
			t.Errorf("%s --%s: docker's takes a %s", verb, name, kind)
		}
	}
	if seen < 200 {
		t.Errorf("the list holds %d flags only", seen)
	}
}

// TestRefusedFlags checks that refusing is not ignoring: no refused flag has a
// place in the code that reads it, so setting it must fail.
func TestRefusedFlags(t *testing.T) {
	for _, verb := range []string{"run", "create"} {
		for _, d := range unsupportedCreateFlags() {
			c, _, err := newRootCommand(&app{}).Find([]string{verb})
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
			if got := flagError(c, err).Error(); !strings.HasPrefix(got, "--"+d.name) || !strings.HasSuffix(got, "is not supported yet") && (d.why == "" || !strings.HasSuffix(got, "is not supported: "+d.why)) {
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

// TestVerbs checks that no verb of docker's is both here and refused, and that
// each of ours is documented.
func TestVerbs(t *testing.T) {
	root := newRootCommand(&app{})
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
