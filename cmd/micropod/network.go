package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newNetworkCommand(a *app) *cobra.Command {
	return group("network", "Manage networks",
		newNetworkCreateCommand(a), newNetworkListCommand(a), newNetworkInspectCommand(a), newNetworkRemoveCommand(a),
		newNetworkPruneCommand(a), newNetworkConnectCommand(a), newNetworkDisconnectCommand(a), newNetworkReloadCommand(a))
}

const networkTable = `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`

type networkListFlags struct {
	quiet, noTrunc bool
	filters        []string
	format         string
}

func newNetworkListCommand(a *app) *cobra.Command {
	var flags networkListFlags
	c := newVerb("ls [OPTIONS]", "List networks", arguments(0, 0), nil)
	c.Aliases = []string{"list"}
	f := c.Flags()
	f.VarP(newChecked(&flags.filters, "filter", checkFilter), "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	f.StringVar(&flags.format, "format", "", formatHelp)
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Do not truncate the output")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only display network IDs")
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error { return a.listNetworks(c.Context(), flags) }
	return c
}

func (a *app) listNetworks(ctx context.Context, flags networkListFlags) error {
	filters, err := parseFilters(flags.filters, networkFilters())
	if err != nil {
		return err
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	all, err := m.Networks(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(x, y manager.NamedNetwork) int { return strings.Compare(x.Name, y.Name) })
	format := parseRowFormat(flags.format, networkTable)
	var rows []networkRow
	for _, n := range all {
		if matchesNetwork(n, filters) {
			rows = append(rows, newNetworkRow(n, flags.noTrunc, format.table))
		}
	}
	if flags.quiet && flags.format == "" {
		format = rowFormat{template: "{{.ID}}"}
	}
	return writeRows(a.out, format, networkHeader(), rows)
}

func networkFilters() map[string][]string {
	return map[string][]string{
		"dangling": {"true", "false", "1", "0"}, "driver": nil, "id": nil, "label": nil, "name": nil,
		"scope": {"local", "global", "swarm"}, "type": {"custom", "builtin"},
	}
}

// matchesNetwork applies docker's filters: alternatives of one key, but for label.
func matchesNetwork(n manager.NamedNetwork, filters map[string][]string) bool {
	kind := "custom"
	if n.Predefined {
		kind = "builtin"
	}
	any := map[string]func(string) bool{
		"driver": func(v string) bool { return n.Driver == v },
		"id":     func(v string) bool { return matchesText(n.ID, v) },
		"name":   func(v string) bool { return matchesText(n.Name, v) },
		"scope":  func(v string) bool { return v == "local" },
		"type":   func(v string) bool { return kind == v },
		"dangling": func(v string) bool {
			dangling, err := strconv.ParseBool(v)
			return err == nil && dangling == (!n.Predefined && !n.Used)
		},
	}
	for key, values := range filters {
		switch {
		case key == "label":
			if slices.ContainsFunc(values, func(l string) bool { return !matchesLabel(n.Labels, l) }) {
				return false
			}
		case !slices.ContainsFunc(values, any[key]):
			return false
		}
	}
	return true
}

// matchesText is docker's comparison: a regular expression, or the text itself.
func matchesText(text, v string) bool {
	re, err := regexp.Compile(v)
	return text == v || err == nil && re.MatchString(text)
}

// networkRow holds the fields of --format, all of them text as docker's are.
type networkRow struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string

	labels map[string]string
	header bool
}

// Label is the value of one label: {{.Label "name"}}.
func (r networkRow) Label(name string) string {
	if r.header {
		return strings.ToUpper(name)
	}
	return r.labels[name]
}

func networkHeader() networkRow {
	return networkRow{
		CreatedAt: "CREATED AT", Driver: "DRIVER", ID: "NETWORK ID", IPv4: "IPV4", IPv6: "IPV6", Internal: "INTERNAL",
		Labels: "LABELS", Name: "NAME", Scope: "SCOPE", header: true,
	}
}

func newNetworkRow(n manager.NamedNetwork, noTrunc, table bool) networkRow {
	r := networkRow{
		CreatedAt: n.Created.String(), Driver: n.Driver, ID: n.ID, IPv4: strconv.FormatBool(n.Name != manager.NetworkNone),
		IPv6: strconv.FormatBool(n.IPv6), Internal: strconv.FormatBool(n.Internal), Labels: joinLabels(n.Labels),
		Name: n.Name, Scope: "local", labels: maps.Clone(n.Labels),
	}
	if !noTrunc {
		r.ID = shortID(r.ID)
	}
	if table {
		r.Labels = escape(r.Labels)
		for k, v := range r.labels {
			r.labels[k] = escape(v)
		}
	}
	return r
}

// completeNetworks offers the networks for the first argument.
func (a *app) completeNetworks(most int) completion {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return a.completeContainers()(c, args, word)
		}
		m, err := a.completing()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		all, err := m.Networks(c.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, n := range all {
			if !slices.Contains(args, n.Name) {
				out = append(out, escape(n.Name))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func newNetworkReloadCommand(a *app) *cobra.Command {
	c := newVerb("reload", "Make firewall rules and bridges again, and list the containers that use them", arguments(0, 0), nil)
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error {
		m, err := a.manager()
		if err != nil {
			return err
		}
		ids, err := m.ReloadNetworks(c.Context())
		if err != nil {
			return err
		}
		for _, id := range ids {
			fmt.Fprintln(a.out, id)
		}
		return nil
	}
	return c
}
