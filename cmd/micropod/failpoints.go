//go:build failpoint

package main

import (
	"fmt"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/spf13/cobra"
)

// testVerbs are there only in the build for the sweep of fail points.
func testVerbs(a *app) []*cobra.Command {
	c := newVerb("failpoints", "List the places at which this build can die", arguments(0, 0), func(*cobra.Command, []string) error {
		for _, p := range failpoint.All() {
			fmt.Fprintln(a.out, p)
		}
		for _, p := range failpoint.VMM() {
			fmt.Fprintf(a.out, "%s=vmm\n", p)
		}
		return nil
	})
	c.Hidden = true
	return []*cobra.Command{c}
}
