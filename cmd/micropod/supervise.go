package main

import "github.com/spf13/cobra"

// newSuperviseCommand is the process behind each VM. The manager starts it; it
// is no verb for people.
func newSuperviseCommand(a *app) *cobra.Command {
	c := newVerb("supervise ID", "Watch over one VM", arguments(1, 1), func(c *cobra.Command, args []string) error {
		// The terminal's signals are for the command that started the VM.
		a.interrupts.stop()
		m, err := a.manager()
		if err != nil {
			return err
		}
		return m.Supervise(args[0])
	})
	c.Hidden = true
	return c
}
