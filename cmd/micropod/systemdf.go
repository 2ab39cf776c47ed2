package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

const (
	dfTable           = `{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`
	dfImagesTable     = `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`
	dfContainersTable = `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`
	dfVolumesTable    = `{{.Name}}\t{{.Links}}\t{{.Size}}`
)

func newSystemDfCommand(a *app) *cobra.Command {
	var verbose bool
	var format string
	c := newVerb("df [OPTIONS]", "Show disk usage of images and containers", arguments(0, 0), nil)
	f := c.Flags()
	f.StringVar(&format, "format", "", formatHelp)
	f.BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.RunE = func(c *cobra.Command, _ []string) error { return a.systemDf(c.Context(), format, verbose) }
	return c
}

func (a *app) systemDf(ctx context.Context, format string, verbose bool) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	usage, err := m.DiskUsage(ctx)
	if err != nil {
		return err
	}
	f := parseRowFormat(format, dfTable)
	if verbose {
		return writeDfDetails(a.out, f, newDfDetails(usage, !f.json, time.Now()))
	}
	return writeRows(a.out, f, dfHeader(), dfRows(usage))
}

// dfRow is a line of the summary, with docker's fields.
type dfRow struct{ Active, Reclaimable, Size, TotalCount, Type string }

func dfHeader() dfRow {
	return dfRow{Active: "ACTIVE", Reclaimable: "RECLAIMABLE", Size: "SIZE", TotalCount: "TOTAL", Type: "TYPE"}
}

// dfRows sums up. What is active is used by a container, or runs.
func dfRows(u *manager.DiskUsage) []dfRow {
	active := 0
	for _, i := range u.Images {
		if i.Containers > 0 {
			active++
		}
	}
	rows := []dfRow{newDfRow("Images", len(u.Images), active, u.ImagesSize, u.ImagesFree)}
	active = 0
	var size, free int64
	for _, c := range u.Containers {
		size += c.Size
		switch c.State {
		case manager.StateCreated, manager.StateExited, manager.StateBroken:
			free += c.Size
		default:
			active++
		}
	}
	return append(rows, newDfRow("Containers", len(u.Containers), active, size, free), newDfRow("Local Volumes", 0, 0, 0, 0))
}

func newDfRow(kind string, total, active int, size, free int64) dfRow {
	r := dfRow{Type: kind, TotalCount: strconv.Itoa(total), Active: strconv.Itoa(active), Size: dfSize(size), Reclaimable: dfSize(free)}
	if size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", int(float64(free)/float64(size)*100))
	}
	return r
}

// dfDetails is what -v shows.
type dfDetails struct {
	Images     []imageRow
	Containers []dfContainerRow
	Volumes    []dfVolumeRow
}

type dfContainerRow struct {
	listRow
	LocalVolumes, Size string
}

type dfVolumeRow struct{ Links, Name, Size string }

func newDfDetails(u *manager.DiskUsage, short bool, now time.Time) dfDetails {
	d := dfDetails{Images: []imageRow{}, Containers: []dfContainerRow{}, Volumes: []dfVolumeRow{}}
	for _, i := range u.Images {
		for _, row := range imageRows(i.Image, nil, !short, false, now) {
			row.Size, row.SharedSize, row.UniqueSize = dfSize(i.Shared+i.Unique), dfSize(i.Shared), dfSize(i.Unique)
			row.VirtualSize, row.Containers = row.Size, strconv.Itoa(i.Containers)
			d.Images = append(d.Images, row)
		}
	}
	for _, c := range u.Containers {
		row := newListRow(c.Container, !short, short, now)
		d.Containers = append(d.Containers, dfContainerRow{listRow: row, LocalVolumes: "0", Size: dfSize(c.Size)})
	}
	return d
}

// writeDfDetails prints three tables, or the value that they come from.
func writeDfDetails(out io.Writer, f rowFormat, d dfDetails) error {
	switch {
	case f.json:
		return writeJSONRows(out, []dfDetails{d})
	case f.table && f.template != dfTable:
		return errors.New("invalid --format: with --verbose there is more than one table")
	case !f.table:
		return writeValue(out, f.template, d, "")
	}
	images := imageHeader()
	containers := dfContainerRow{listRow: listHeader(), LocalVolumes: "LOCAL VOLUMES", Size: "SIZE"}
	containers.ID, containers.Names = "CONTAINER ID", "NAMES"
	fmt.Fprint(out, "Images space usage:\n\n")
	if err := writeRows(out, rowFormat{table: true, template: dfImagesTable}, images, d.Images); err != nil {
		return err
	}
	fmt.Fprint(out, "\nContainers space usage:\n\n")
	if err := writeRows(out, rowFormat{table: true, template: dfContainersTable}, containers, d.Containers); err != nil {
		return err
	}
	fmt.Fprint(out, "\nLocal Volumes space usage:\n\n")
	header := dfVolumeRow{Links: "LINKS", Name: "VOLUME NAME", Size: "SIZE"}
	return writeRows(out, rowFormat{table: true, template: dfVolumesTable}, header, d.Volumes)
}

// dfSize has docker's four digits.
func dfSize(n int64) string { return units.HumanSizeWithPrecision(float64(n), 4) }
