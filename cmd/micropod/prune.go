package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pruneFlags are those of every prune.
type pruneFlags struct {
	force   bool
	filters []string
}

func (p *pruneFlags) register(f *pflag.FlagSet) {
	f.Var(newChecked(&p.filters, "filter", checkFilter), "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	f.BoolVarP(&p.force, "force", "f", false, "Do not prompt for confirmation")
}

// pruneFilters say what may go.
type pruneFilters struct {
	values map[string][]string
	until  time.Time // zero: of any age
}

func (p *pruneFlags) read(allowed map[string][]string) (pruneFilters, error) {
	values, err := parseFilters(p.filters, allowed)
	if err != nil {
		return pruneFilters{}, err
	}
	until, err := untilTime(values["until"], time.Now())
	return pruneFilters{values, until}, err
}

// match applies docker's rules: older than until, every label, none of label!.
func (p pruneFilters) match(created time.Time, labels map[string]string) bool {
	has := func(l string) bool { return matchesLabel(labels, l) }
	lacks := func(l string) bool { return !has(l) }
	old := p.until.IsZero() || created.Before(p.until)
	return old && !slices.ContainsFunc(p.values["label"], lacks) && !slices.ContainsFunc(p.values["label!"], has)
}

func ageAndLabels() map[string][]string {
	return map[string][]string{"until": nil, "label": nil, "label!": nil}
}

func newContainerPruneCommand(a *app) *cobra.Command {
	var flags pruneFlags
	c := newVerb("prune [OPTIONS]", "Remove all stopped containers", arguments(0, 0), nil)
	flags.register(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		filters, err := flags.read(ageAndLabels())
		if err != nil {
			return err
		}
		sure, err := a.confirm(c.Context(), flags.force, "WARNING! This will remove all stopped containers.")
		if err != nil || !sure {
			return err
		}
		done, err := a.pruneContainers(c.Context(), filters)
		a.printReclaimed(done.Freed)
		return err
	}
	return c
}

// pruneContainers removes what has stopped and says so, after an error too.
func (a *app) pruneContainers(ctx context.Context, filters pruneFilters) (manager.PrunedContainers, error) {
	m, err := a.manager()
	if err != nil {
		return manager.PrunedContainers{}, err
	}
	done, err := m.PruneContainers(ctx, func(c manager.Container) bool { return filters.match(c.Created, c.Labels) })
	if len(done.Deleted) > 0 {
		fmt.Fprintf(a.out, "Deleted Containers:\n%s\n\n", strings.Join(done.Deleted, "\n"))
	}
	return done, err
}

func (a *app) printReclaimed(bytes int64) {
	fmt.Fprintf(a.out, "Total reclaimed space: %s\n", units.HumanSize(float64(bytes)))
}

// confirm asks whether to go on. To say no is no error, as in docker.
func (a *app) confirm(ctx context.Context, force bool, warning string) (bool, error) {
	if force {
		return true, nil
	}
	fmt.Fprintf(a.out, "%s\nAre you sure you want to continue? [y/N] ", warning)
	answers := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReaderSize(a.in, 16).ReadString('\n')
		answers <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case answer := <-answers:
		return answer == "y" || answer == "yes", nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
