package main

import (
	"testing"

	"github.com/spf13/pflag"
)

// TestTemplatesFlag: Firecracker's VMs boot unless told otherwise, and the
// supervisor is told what its command was told.
func TestTemplatesFlag(t *testing.T) {
	for _, test := range []struct {
		args []string
		want templates
		bad  bool
	}{
		{nil, templatesEmulated, false},
		{[]string{"--templates"}, templatesAll, false},
		{[]string{"--templates=true"}, templatesAll, false},
		{[]string{"--templates=1"}, templatesAll, false},
		{[]string{"--templates=false"}, templatesNone, false},
		{[]string{"--templates", "--templates=false"}, templatesNone, false},
		{[]string{"--templates="}, 0, true},
		{[]string{"--templates=some"}, 0, true},
	} {
		var g globals
		read := func(g *globals, args []string) error {
			f := pflag.NewFlagSet("", pflag.ContinueOnError)
			f.ParseErrorsAllowlist.UnknownFlags = true
			g.templates.register(f)
			return f.Parse(args)
		}
		if err := read(&g, test.args); (err != nil) != test.bad || err == nil && g.templates != test.want {
			t.Errorf("%q: %d, %v", test.args, g.templates, err)
		}
		var theirs globals
		if err := read(&theirs, supervisorCommand("micropod", "/root", g)); err != nil || theirs.templates != g.templates {
			t.Errorf("%q: the supervisor has %d, %v", test.args, theirs.templates, err)
		}
	}
}
