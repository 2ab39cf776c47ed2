package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newSystemPruneCommand(a *app) *cobra.Command {
	var flags pruneFlags
	var all bool
	c := newVerb("prune [OPTIONS]", "Remove unused data", arguments(0, 0), nil)
	f := c.Flags()
	f.BoolVarP(&all, "all", "a", false, "Remove all unused images not just dangling ones")
	flags.register(f)
	refuse(f, []dockerFlag{boolean("volumes")})
	c.RunE = func(c *cobra.Command, _ []string) error {
		filters, err := flags.read(ageAndLabels())
		if err != nil {
			return err
		}
		sure, err := a.confirm(c.Context(), flags.force, systemWarning(all, flags.filters))
		if err != nil || !sure {
			return err
		}
		return a.pruneSystem(c.Context(), all, filters)
	}
	return c
}

// systemWarning is docker's, of what there is here.
func systemWarning(all bool, filters []string) string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers",
		"  - all networks not used by at least one container", "  - " + imagesToGo(all), ""}
	if len(filters) > 0 {
		lines = append(lines, "  Items to be pruned will be filtered with:")
		for _, f := range slices.Sorted(slices.Values(filters)) {
			lines = append(lines, "  - "+escape(f))
		}
		lines = append(lines, "")
	}
	return strings.Join(lines, "\n")
}

func (a *app) pruneSystem(ctx context.Context, all bool, filters pruneFilters) error {
	containers, err := a.pruneContainers(ctx, filters)
	if err != nil {
		return err
	}
	if err := a.pruneNetworks(ctx, filters); err != nil {
		return err
	}
	images, err := a.pruneImages(ctx, all, filters)
	a.printImages(images)
	a.printReclaimed(containers.Freed + images.Freed)
	return err
}

func newSystemCheckCommand(a *app) *cobra.Command {
	var repair bool
	var format string
	c := newVerb("check [OPTIONS]", "Compare what is on this machine with the records", arguments(0, 0), nil)
	f := c.Flags()
	f.BoolVar(&repair, "repair", false, "Remove what is left over, and mend records")
	f.StringVar(&format, "format", "", formatHelp)
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		found, err := m.Check(c.Context(), repair)
		if werr := writeFindings(a, format, found); werr != nil {
			return werr
		}
		if err == nil && slices.ContainsFunc(found, func(f manager.Finding) bool { return !f.Repaired }) {
			err = &exitError{code: exitFailure}
		}
		return err
	}
	return c
}

func writeFindings(a *app, format string, found []manager.Finding) error {
	if format != "" {
		return writeRows(a.out, parseRowFormat(format, findingsTable), findingHeader(), rowsOf(found))
	}
	for _, f := range found {
		if _, err := fmt.Fprintln(a.out, findingLine(f)); err != nil {
			return err
		}
	}
	return nil
}

// findingLine is one finding for people, with what a repair does or did.
func findingLine(f manager.Finding) string {
	line := fmt.Sprintf("%s %s: %s", f.Kind, f.Subject, f.Problem)
	switch {
	case f.Repaired:
		line += ": repaired (" + f.Remedy + ")"
	case f.Error != "":
		line += fmt.Sprintf(" (to do: %s): %s", f.Remedy, f.Error)
	case f.Repairable:
		line += " (--repair: " + f.Remedy + ")"
	default:
		line += " (to do by hand: " + f.Remedy + ")"
	}
	return escape(line)
}

const findingsTable = `{{.Kind}}\t{{.Subject}}\t{{.Problem}}\t{{.Remedy}}\t{{.Repaired}}`

// findingRow holds the fields of --format.
type findingRow struct {
	Kind, Subject, Problem, Remedy, Repairable, Repaired, Error string
}

func findingHeader() findingRow {
	return findingRow{"KIND", "SUBJECT", "PROBLEM", "REMEDY", "REPAIRABLE", "REPAIRED", "ERROR"}
}

func rowsOf(found []manager.Finding) []findingRow {
	var rows []findingRow
	for _, f := range found {
		rows = append(rows, findingRow{
			Kind: f.Kind, Subject: escape(f.Subject), Problem: escape(f.Problem), Remedy: escape(f.Remedy),
			Repairable: fmt.Sprint(f.Repairable), Repaired: fmt.Sprint(f.Repaired), Error: escape(f.Error),
		})
	}
	return rows
}
