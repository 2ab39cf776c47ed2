package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/manager"
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
		"--root run create":           "create",
		"--root=/x run":               "run",
		"--help":                      "",
		"--help run":                  "",
		"-Dh run":                     "",
		"-D=true run":                 "run",
		"--unknown run":               "",
		"-- run":                      "",
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

// TestSameAnswers: what a wrong command line, or a question for help, is told does
// not depend on how much of the tree was made.
func TestSameAnswers(t *testing.T) {
	answer := func(line []string, known ...string) string {
		_, interrupts := notifyInterrupts(t.Context())
		defer interrupts.stop()
		a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, interrupts: interrupts, open: func(*app) (*manager.Manager, error) { return nil, errors.New("reached") }}
		root := newRootCommand(a, known)
		var out strings.Builder
		root.SetArgs(slices.Clone(line))
		root.SetOut(&out)
		root.SetErr(&out)
		c, err := root.ExecuteContextC(t.Context())
		return fmt.Sprintf("%s\n%v\n%s", c.CommandPath(), err, &out)
	}
	for _, before := range []string{
		"", "--help ", "-h ", "--version ", "-v ", "-D ", "-Dh ", "--debug --help ", "-- ", "--unknown ", "-x ", "--root ", "--root x ", "--root= ", "--jailer=maybe ",
		"--jailer false ", "--log-format=xx ", "help ", "container ", "__complete ", "- ", "-Droot ", "-D=x ",
	} {
		for _, verb := range []string{"run", "create", "start", "exec", "supervise"} {
			for _, after := range []string{"", " --help", " -h", " x", " -- x", " --unknown", " --root", " --root x y", " " + verb} {
				line := strings.Fields(before + verb + after)
				if got, want := answer(line, line...), answer(line); got != want {
					t.Errorf("%q: %s, by the whole tree %s", line, got, want)
				}
			}
		}
	}
}
