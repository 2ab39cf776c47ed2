package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newImagePruneCommand(a *app) *cobra.Command {
	var all, force bool
	var filters []string
	c := newVerb("prune [OPTIONS]", "Remove unused images", arguments(0, 0), nil)
	f := c.Flags()
	f.BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	f.Var(newChecked(&filters, "filter", checkFilter), "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	f.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	c.RunE = func(c *cobra.Command, _ []string) error { return a.pruneImages(c.Context(), all, force, filters) }
	return c
}

func (a *app) pruneImages(ctx context.Context, all, force bool, given []string) error {
	filters, err := parseFilters(given, map[string][]string{
		"until": nil, "label": nil, "label!": nil, "dangling": {"true", "false", "1", "0"},
	})
	if err != nil {
		return err
	}
	until, err := untilTime(filters["until"], time.Now())
	if err != nil {
		return err
	}
	for _, d := range filters["dangling"] {
		all = d == "false" || d == "0"
	}
	delete(filters, "dangling")
	if !force {
		if err := a.confirmPrune(ctx, all); err != nil {
			return err
		}
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	done, err := m.PruneImages(ctx, func(i manager.Image) bool {
		old := until.IsZero() || i.Created.Before(until)
		return old && (all || len(i.Names) == 0) && matchesFilters(i, filters)
	})
	a.printPruned(done)
	return err
}

func (a *app) confirmPrune(ctx context.Context, all bool) error {
	what := "all dangling images"
	if all {
		what = "all images without at least one container associated to them"
	}
	fmt.Fprintf(a.out, "WARNING! This will remove %s.\nAre you sure you want to continue? [y/N] ", what)
	answers := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReaderSize(a.in, 16).ReadString('\n')
		answers <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case answer := <-answers:
		if answer != "y" && answer != "yes" {
			return errors.New("image prune has been cancelled")
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// printPruned says what is gone, after an error too.
func (a *app) printPruned(done manager.PrunedImages) {
	if len(done.Untagged)+len(done.Deleted) > 0 {
		fmt.Fprintln(a.out, "Deleted Images:")
		for _, name := range done.Untagged {
			fmt.Fprintf(a.out, "untagged: %s\n", escape(familiarName(name)))
		}
		for _, id := range done.Deleted {
			fmt.Fprintf(a.out, "deleted: %s\n", escape(id))
		}
		fmt.Fprintln(a.out)
	}
	fmt.Fprintf(a.out, "Total reclaimed space: %s\n", units.HumanSize(float64(done.Freed)))
}
