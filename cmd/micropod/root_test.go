package main

import (
	"strings"
	"testing"
)

func TestVerbOf(t *testing.T) {
	for line, want := range map[string]string{
		"":                            "",
		"run -d alpine ls":            "run",
		"-D --root /x run alpine":     "run",
		"--root=/x --jailer=false ps": "ps",
		"--log-format json exec a b":  "exec",
		"--jail-ids 1-2 supervise x":  "supervise",
		"--root":                      "",
		"--root run":                  "",
		"--help":                      "",
		"help run":                    "help",
		"container run":               "container",
	} {
		if got := verbOf(strings.Fields(line)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestSoleVerbs: a verb that is alone in its tree is the one of the whole tree.
func TestSoleVerbs(t *testing.T) {
	sole := 0
	for _, v := range verbs(&app{}) {
		alone := newRootCommand(&app{}, []string{v.Name()})
		if len(alone.Commands()) > 1 {
			continue
		}
		sole++
		a, _, err := alone.Find([]string{v.Name()})
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := newRootCommand(&app{}, nil).Find([]string{v.Name()})
		if err != nil {
			t.Fatal(err)
		}
		if a.UsageString() != b.UsageString() || a.CommandPath() != b.CommandPath() {
			t.Errorf("%s: %s, alone %s", v.Name(), b.UsageString(), a.UsageString())
		}
	}
	if sole != 5 {
		t.Errorf("%d verbs are alone in their trees", sole)
	}
}
