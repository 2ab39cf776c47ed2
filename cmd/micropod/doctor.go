package main

import (
	"fmt"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newDoctorCommand(a *app) *cobra.Command {
	c := newVerb("doctor", "Check what this machine needs to run containers", arguments(0, 0), nil)
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		able := true
		for _, check := range m.Doctor(c.Context()) {
			able = able && (check.OK || !check.Required)
			if _, err := fmt.Fprintln(a.out, doctorLine(check)); err != nil {
				return err
			}
		}
		if !able {
			return &exitError{code: exitFailure}
		}
		return nil
	}
	return c
}

// doctorLine is one requirement: ok, or what is missing and how to mend it.
func doctorLine(c manager.Check) string {
	state := "ok     "
	switch {
	case !c.OK && c.Required:
		state = "missing"
	case !c.OK:
		state = "note   "
	}
	line := state + " " + c.Name
	if c.Detail != "" {
		line += ": " + c.Detail
	}
	if !c.OK && c.Fix != "" {
		line += " (" + c.Fix + ")"
	}
	return escape(line)
}
