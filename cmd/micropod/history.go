package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

const (
	historyTable      = `{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
	historyExactTable = `{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
	// missing is docker's word for steps that are no image of their own.
	missing = "<missing>"
)

type historyFlags struct {
	human, noTrunc, quiet bool
	format, platform      string
}

func newHistoryCommand(a *app) *cobra.Command {
	var flags historyFlags
	c := newVerb("history [OPTIONS] IMAGE", "Show the history of an image", arguments(1, 1), nil)
	f := c.Flags()
	f.StringVar(&flags.format, "format", "", formatHelp)
	f.BoolVarP(&flags.human, "human", "H", true, "Print sizes and dates in human readable format")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	f.StringVar(&flags.platform, "platform", "", "Fail unless the image is for this platform (os[/arch[/variant]])")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only show image IDs")
	c.ValidArgsFunction = a.completeImages(1)
	c.RunE = func(c *cobra.Command, args []string) error { return a.history(c.Context(), args[0], flags) }
	return c
}

func (a *app) history(ctx context.Context, ref string, flags historyFlags) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	steps, err := m.History(ctx, ref, flags.platform)
	if err != nil {
		return err
	}
	rows := make([]historyRow, 0, len(steps))
	for _, s := range steps {
		rows = append(rows, newHistoryRow(s, flags, time.Now()))
	}
	if flags.quiet {
		for _, r := range rows {
			if _, err := fmt.Fprintln(a.out, r.ID); err != nil {
				return err
			}
		}
		return nil
	}
	table := historyTable
	if !flags.human {
		table = historyExactTable
	}
	return writeRows(a.out, parseRowFormat(flags.format, table), historyHeader(), rows)
}

// historyRow holds the fields of --format.
type historyRow struct {
	Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string
}

func historyHeader() historyRow {
	return historyRow{
		Comment: "COMMENT", CreatedAt: "CREATED AT", CreatedBy: "CREATED BY", CreatedSince: "CREATED", ID: "IMAGE", Size: "SIZE",
	}
}

func newHistoryRow(s manager.HistoryStep, flags historyFlags, now time.Time) historyRow {
	r := historyRow{
		ID: missing, Comment: escape(s.Comment), CreatedSince: ago(s.Created, now), CreatedAt: "N/A",
		CreatedBy: escape(strings.ReplaceAll(s.CreatedBy, "\t", " ")), Size: strconv.FormatInt(s.Size, 10),
	}
	if !s.Created.IsZero() {
		r.CreatedAt = s.Created.Local().Format(time.RFC3339)
	}
	if s.ImageID != "" {
		r.ID = escape(s.ImageID)
	}
	if !flags.noTrunc {
		r.ID, r.CreatedBy = shortID(r.ID), ellipsis(r.CreatedBy, 45)
	}
	if flags.human {
		r.Size = units.HumanSizeWithPrecision(float64(s.Size), 3)
	}
	return r
}
