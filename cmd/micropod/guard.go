package main

import (
	"cmp"
	"os"

	"github.com/micropod/micropod/pkg/firecracker"
)

// guardVerb is what the Firecracker driver runs this program with, as the guard
// of a jailed VM. It is no verb for people.
const guardVerb = "jail-guard"

// runAsGuard never returns in a guard. It comes before the command line is
// read, because a guard stays for as long as its VM and should be small.
func runAsGuard(args []string) {
	if len(args) == 3 && args[1] == guardVerb {
		os.Exit(firecracker.RunGuard(args[2]))
	}
}

// jailIDs is the default of --jail-ids.
func jailIDs() string {
	return cmp.Or(os.Getenv("MICROPOD_JAIL_IDS"), firecracker.DefaultJailIDs().String())
}
