package main

import (
	"context"
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
		"reference": nil, "label": nil, "before": nil, "since": nil, "dangling": {"true", "false", "1", "0"},
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
	if flags.quiet {
		return a.imageIDs(images, flags.noTrunc)
	}
	table := imagesTable
	if flags.digests {
		table = imagesDigestTable
	}
	var rows []imageRow
	for _, i := range images {
		rows = append(rows, imageRows(i, filters["reference"], flags.noTrunc, flags.digests, time.Now())...)
	}
	return writeRows(a.out, parseRowFormat(flags.format, table), imageHeader(), rows)
}

func (a *app) imageIDs(images []manager.Image, noTrunc bool) error {
	for _, i := range images {
		id := i.ID
		if !noTrunc {
			id = shortID(id)
		}
		if _, err := fmt.Fprintln(a.out, escape(id)); err != nil {
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
	out := slices.DeleteFunc(slices.Clone(images), func(i manager.Image) bool {
		return !matchesFilters(i, filters) || !before.IsZero() && !i.Created.Before(before) || !since.IsZero() && !i.Created.After(since)
	})
	slices.SortStableFunc(out, func(x, y manager.Image) int { return y.Created.Compare(x.Created) })
	return out, nil
}

func matchesFilters(i manager.Image, filters map[string][]string) bool {
	for _, d := range filters["dangling"] {
		if (d == "true" || d == "1") != (len(i.Names) == 0) {
			return false
		}
	}
	for _, l := range filters["label"] {
		key, want, hasValue := strings.Cut(l, "=")
		value, ok := i.Config.Config.Labels[key]
		if !ok || hasValue && value != want {
			return false
		}
	}
	patterns := filters["reference"]
	return len(patterns) == 0 || slices.ContainsFunc(i.Names, func(name string) bool { return matchesAny(patterns, name) })
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchesName(p, name) })
}

// imageRow holds the fields of --format.
type imageRow struct {
	CreatedAt, CreatedSince, Digest, ID, Platform, Repository, Size, Tag string
}

func imageHeader() imageRow {
	return imageRow{
		CreatedAt: "CREATED AT", CreatedSince: "CREATED", Digest: "DIGEST", ID: "IMAGE ID", Platform: "PLATFORM",
		Repository: "REPOSITORY", Size: "SIZE", Tag: "TAG",
	}
}

// imageRows is one row for each name of an image that fits the patterns.
func imageRows(i manager.Image, patterns []string, noTrunc, digests bool, now time.Time) []imageRow {
	base := imageRow{
		ID: escape(i.ID), Platform: escape(i.Platform), Size: units.HumanSizeWithPrecision(float64(i.Size), 3),
		CreatedSince: ago(i.Created, now), CreatedAt: i.Created.Local().String(), Repository: none, Tag: none, Digest: none,
	}
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
	if len(i.Names) == 0 {
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
