package main

import (
	"slices"
	"testing"
)

// TestSupervisorCommand: what a user says about jails and logs is said to the
// supervisor, which starts the VM.
func TestSupervisorCommand(t *testing.T) {
	a := &app{}
	root := newRootCommand(a, nil)
	if err := root.ParseFlags([]string{"--jailer=false", "--jail-ids", "70000-80000", "--log-format", "json", "-D"}); err != nil {
		t.Fatal(err)
	}
	argv := supervisorCommand("/bin/micropod", "/root", a.globals)
	b := &app{}
	theirs := newRootCommand(b, nil)
	if err := theirs.ParseFlags(argv[1:]); err != nil {
		t.Fatal(err)
	}
	a.globals.root = "/root"
	if b.globals != a.globals {
		t.Errorf("the supervisor gets %+v, not %+v", b.globals, a.globals)
	}
	if args := theirs.Flags().Args(); !slices.Equal(args, []string{"supervise"}) {
		t.Errorf("its verb is %v", args)
	}
}

// TestJailIDs: the flag is before the variable, the variable before the default.
func TestJailIDs(t *testing.T) {
	for variable, want := range map[string]string{"": "1900000000-1900065535", "70000-80000": "70000-80000"} {
		t.Setenv("MICROPOD_JAIL_IDS", variable)
		a := &app{}
		if err := newRootCommand(a, nil).ParseFlags(nil); err != nil {
			t.Fatal(err)
		}
		if a.globals.jailIDs != want || !a.globals.jailer {
			t.Errorf("%q: %+v", variable, a.globals)
		}
	}
}
