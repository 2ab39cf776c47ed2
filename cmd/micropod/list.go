package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

const listTable = `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.State}}\t{{.PID}}\t{{.Name}}`

type listFlags struct {
	all, quiet, noTrunc, latest bool
	filters                     []string
	format                      string
	last                        int
}

func newListCommand(a *app) *cobra.Command {
	var flags listFlags
	c := newVerb("list [OPTIONS]", "List containers", arguments(0, 0), nil)
	c.Aliases = []string{"ps", "ls"}
	f := c.Flags()
	f.BoolVarP(&flags.all, "all", "a", false, "Show all containers (default shows just running)")
	f.VarP(newChecked(&flags.filters, "filter", checkFilter), "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&flags.format, "format", "", formatHelp)
	f.IntVarP(&flags.last, "last", "n", -1, "Show n last created containers (includes all states)")
	f.BoolVarP(&flags.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only display container IDs")
	refuse(f, []dockerFlag{{name: "size", shorthand: "s", neutral: "false"}})
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error { return a.list(c.Context(), flags) }
	return c
}

const formatHelp = `Format output: "table", "table TEMPLATE", "json" or a Go template`

func (a *app) list(ctx context.Context, flags listFlags) error {
	filters, err := parseFilters(flags.filters, listFilters())
	if err != nil {
		return err
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	o := manager.ListOptions{All: flags.all, Filters: filters, Last: max(flags.last, 0)}
	if flags.latest {
		o.Last = 1
	}
	containers, err := m.List(ctx, o)
	if err != nil {
		return err
	}
	for _, c := range containers {
		if c.State == manager.StateBroken {
			a.warn("container %s: %s", shortID(c.ID), c.Problem)
		}
	}
	if flags.quiet {
		flags.format = "{{.ID}}"
	}
	format := parseRowFormat(flags.format, listTable)
	var rows []listRow
	for _, c := range containers {
		rows = append(rows, newListRow(c, flags.noTrunc, format.table, time.Now()))
	}
	return writeRows(a.out, format, listHeader(), rows)
}

// listRow holds the fields of --format, all of them text as docker's are.
type listRow struct {
	Command, CreatedAt, ExitCode, ID, Image, Labels, Name, Names, Networks, PID, Platform, Ports, RunningFor, State, Status, VMM string

	labels map[string]string
	header bool
}

// Label is the value of one label: {{.Label "name"}}.
func (r listRow) Label(name string) string {
	if r.header {
		return strings.ToUpper(name)
	}
	return r.labels[name]
}

func listHeader() listRow {
	return listRow{
		Command: "COMMAND", CreatedAt: "CREATED AT", ExitCode: "EXIT CODE", ID: "ID", Image: "IMAGE", Labels: "LABELS",
		Name: "NAME", Names: "NAMES", Networks: "NETWORKS", PID: "PID", Platform: "PLATFORM", Ports: "PORTS", RunningFor: "CREATED", State: "STATE",
		Status: "STATUS", VMM: "VMM", header: true,
	}
}

func newListRow(c manager.Container, noTrunc, table bool, now time.Time) listRow {
	id, command, image := c.ID, strings.Join(c.Command, " "), c.Image
	if !noTrunc {
		id, command = shortID(id), ellipsis(escape(command), 20)
		if i := strings.LastIndex(image, "@sha256:"); i > 0 {
			image = image[:i]
		}
		image = familiarName(image)
	}
	r := listRow{
		ID: id, Image: image, Command: strconv.Quote(command), CreatedAt: c.Created.Local().String(), RunningFor: ago(c.Created, now),
		State: string(c.State), Status: c.Status, Name: c.Name, Names: c.Name, Platform: c.Platform, VMM: c.VMM.Name,
		Labels: joinLabels(c.Labels), labels: c.Labels, Ports: shownPorts(&c), Networks: strings.Join(networkNames(c), ","),
	}
	if c.PID > 0 {
		r.PID = strconv.Itoa(c.PID)
	}
	if c.State == manager.StateExited {
		r.ExitCode = strconv.Itoa(c.ExitCode)
	}
	if !table {
		return r
	}
	for _, s := range []*string{&r.ID, &r.Image, &r.Status, &r.Name, &r.Names, &r.Platform, &r.Networks, &r.Ports, &r.Labels} {
		*s = escape(*s)
	}
	r.labels = map[string]string{}
	for k, v := range c.Labels {
		r.labels[k] = escape(v)
	}
	return r
}

// networkNames are those of the networks that a container is to be in.
func networkNames(c manager.Container) []string {
	if len(c.Attachments) == 0 {
		return []string{manager.NetworkNone}
	}
	var names []string
	for _, a := range c.Attachments {
		names = append(names, a.Name)
	}
	return names
}

// ago is a time for people: "2 minutes ago".
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return units.HumanDuration(max(now.Sub(t), 0)) + " ago"
}

func joinLabels(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, ",")
}

func checkFilter(s string) (string, error) {
	if key, _, ok := strings.Cut(s, "="); !ok || strings.TrimSpace(key) == "" {
		return "", fmt.Errorf("bad format of filter (expected name=value)")
	}
	return s, nil
}

// parseFilters sorts the --filter values by key; allowed maps a key to its
// values, nil for any. A key that docker has and we do not is refused too.
func parseFilters(filters []string, allowed map[string][]string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		values, known := allowed[key]
		if !known {
			return nil, fmt.Errorf("invalid filter '%s': the filters are %s", key, strings.Join(slices.Sorted(maps.Keys(allowed)), ", "))
		}
		if values != nil && !slices.Contains(values, value) {
			return nil, fmt.Errorf("invalid filter '%s=%s': must be one of %s", key, value, strings.Join(values, ", "))
		}
		out[key] = append(out[key], value)
	}
	return out, nil
}

func listFilters() map[string][]string {
	return map[string][]string{
		"id": nil, "name": nil, "label": nil, "ancestor": nil, "exited": nil, "before": nil, "since": nil, "status": nil,
		"network": nil,
		"health":  {"starting", "healthy", "unhealthy", "none"},
	}
}
