package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

const (
	imagesTable       = `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	imagesDigestTable = `{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	none              = "<none>"
	// notCounted is docker's word for what only `system df` works out.
	notCounted = "N/A"
)

type imagesFlags struct {
	quiet, noTrunc, digests bool
	filters                 []string
	format                  string
}

func newImagesCommand(a *app) *cobra.Command {
	var flags imagesFlags
	c := newVerb("images [OPTIONS] [REPOSITORY[:TAG]]", "List images", arguments(0, 1), nil)
	f := c.Flags()
	// Every image is a whole one here: there are none in between to hide.
	f.BoolP("all", "a", false, "Show all images")
	f.BoolVar(&flags.digests, "digests", false, "Show digests")
	f.VarP(newChecked(&flags.filters, "filter", checkFilter), "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&flags.format, "format", "", formatHelp)
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only show image IDs")
	refuse(f, []dockerFlag{boolean("tree")})
	c.ValidArgsFunction = a.completeImages(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			flags.filters = append(flags.filters, "reference="+args[0])
		}
		return a.images(c.Context(), flags)
	}
	return c
}

func (a *app) images(ctx context.Context, flags imagesFlags) error {
	filters, err := parseFilters(flags.filters, map[string][]string{
		"reference": nil, "label": nil, "before": nil, "since": nil, "until": nil, "dangling": {"true", "false", "1", "0"},
	})
	if err != nil {
		return err
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	images, problems, err := m.Images(ctx)
	if err != nil {
		return err
	}
	for _, p := range problems {
		a.warn("%s", p)
	}
	images, err = filterImages(images, filters, func(ref string) (*manager.Image, error) { return m.InspectImage(ctx, ref, "") })
	if err != nil {
		return err
	}
	table := imagesTable
	if flags.digests {
		table = imagesDigestTable
	}
	var rows []imageRow
	for _, i := range images {
		rows = append(rows, imageRows(i, filters["reference"], flags.noTrunc, flags.digests, time.Now())...)
	}
	if flags.quiet {
		return a.imageIDs(rows)
	}
	return writeRows(a.out, parseRowFormat(flags.format, table), imageHeader(), rows)
}

func (a *app) imageIDs(rows []imageRow) error {
	for _, r := range rows {
		if _, err := fmt.Fprintln(a.out, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// filterImages keeps what docker's filters ask for, the newest first.
func filterImages(images []manager.Image, filters map[string][]string, get func(string) (*manager.Image, error)) ([]manager.Image, error) {
	before, since := time.Time{}, time.Time{}
	for _, ref := range filters["before"] {
		i, err := get(ref)
		if err != nil {
			return nil, err
		}
		if before.IsZero() || i.Created.Before(before) {
			before = i.Created
		}
	}
	for _, ref := range filters["since"] {
		i, err := get(ref)
		if err != nil {
			return nil, err
		}
		if i.Created.After(since) {
			since = i.Created
		}
	}
	until, err := untilTime(filters["until"], time.Now())
	if err != nil {
		return nil, err
	}
	if !until.IsZero() && (before.IsZero() || until.Before(before)) {
		before = until
	}
	out := slices.DeleteFunc(slices.Clone(images), func(i manager.Image) bool {
		return !matchesFilters(i, filters) || !before.IsZero() && !i.Created.Before(before) || !since.IsZero() && !i.Created.After(since)
	})
	slices.SortStableFunc(out, func(x, y manager.Image) int { return y.Created.Compare(x.Created) })
	return out, nil
}

// untilTime reads the one value that an until filter may have.
func untilTime(values []string, now time.Time) (time.Time, error) {
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
		t, err := parseTime(values[0], now)
		if err != nil {
			err = fmt.Errorf("invalid filter 'until=%s': %w", values[0], err)
		}
		return t, err
	}
	return time.Time{}, errors.New("more than one until filter specified")
}

func matchesFilters(i manager.Image, filters map[string][]string) bool {
	for _, d := range filters["dangling"] {
		if (d == "true" || d == "1") != (len(i.Names) == 0) {
			return false
		}
	}
	hasLabel := func(l string) bool { return matchesLabel(i.Config.Config.Labels, l) }
	for _, l := range filters["label"] {
		if !hasLabel(l) {
			return false
		}
	}
	if slices.ContainsFunc(filters["label!"], hasLabel) {
		return false
	}
	patterns := filters["reference"]
	names := slices.Concat(i.Names, digestsOnly(i))
	return len(patterns) == 0 || slices.ContainsFunc(names, func(name string) bool { return matchesAny(patterns, name) })
}

// matchesLabel reports whether labels hold "KEY" or "KEY=VALUE".
func matchesLabel(labels map[string]string, wanted string) bool {
	key, want, hasValue := strings.Cut(wanted, "=")
	value, ok := labels[key]
	return ok && (!hasValue || value == want)
}

// digestsOnly are the digests of repositories in which the image has no tag.
func digestsOnly(i manager.Image) []string {
	var out []string
	for _, d := range i.Digests {
		repository, _ := splitName(d)
		tagged := func(name string) bool { r, _ := splitName(name); return familiarName(r) == familiarName(repository) }
		if !slices.ContainsFunc(i.Names, tagged) {
			out = append(out, d)
		}
	}
	return out
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchesName(p, name) })
}

// imageRow holds the fields of --format.
type imageRow struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Platform, Repository string
	SharedSize, Size, Tag, UniqueSize, VirtualSize                        string
}

func imageHeader() imageRow {
	return imageRow{
		CreatedAt: "CREATED AT", CreatedSince: "CREATED", Digest: "DIGEST", ID: "IMAGE ID", Platform: "PLATFORM",
		Repository: "REPOSITORY", Size: "SIZE", Tag: "TAG",
		Containers: "CONTAINERS", SharedSize: "SHARED SIZE", UniqueSize: "UNIQUE SIZE", VirtualSize: "SIZE",
	}
}

// imageRows is one row for each name of an image that fits the patterns.
func imageRows(i manager.Image, patterns []string, noTrunc, digests bool, now time.Time) []imageRow {
	base := imageRow{
		ID: escape(i.ID), Platform: escape(i.Platform), Size: units.HumanSizeWithPrecision(float64(i.Size), 3),
		CreatedSince: ago(i.Created, now), CreatedAt: i.Created.Local().String(), Repository: none, Tag: none, Digest: none,
		Containers: notCounted, SharedSize: notCounted, UniqueSize: notCounted,
	}
	base.VirtualSize = base.Size
	if !noTrunc {
		base.ID = shortID(base.ID)
	}
	var rows []imageRow
	for _, name := range i.Names {
		if len(patterns) > 0 && !matchesAny(patterns, name) {
			continue
		}
		row := base
		repository, tag := splitName(name)
		row.Repository = escape(familiarName(repository))
		if tag != "" {
			row.Tag = escape(tag)
		}
		if digests {
			row.Digest = digestOf(i, repository)
		}
		rows = append(rows, row)
	}
	for _, d := range digestsOnly(i) {
		repository, _ := splitName(d)
		row := base
		if row.Repository = escape(familiarName(repository)); digests {
			row.Digest = digestOf(i, repository)
		}
		seen := slices.Contains(rows, row)
		if !seen && (len(patterns) == 0 || matchesAny(patterns, d)) {
			rows = append(rows, row)
		}
	}
	if len(i.Names)+len(i.Digests) == 0 {
		rows = append(rows, base)
	}
	return rows
}

// digestOf is the digest under which the repository has the image.
func digestOf(i manager.Image, repository string) string {
	for _, d := range i.Digests {
		if name, digest, ok := strings.Cut(d, "@"); ok && familiarName(name) == familiarName(repository) {
			return escape(digest)
		}
	}
	return none
}
