package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newLogsCommand(a *app) *cobra.Command {
	var follow, timestamps, details bool
	var since, until, tail string
	c := newVerb("logs [OPTIONS] CONTAINER", "Fetch the logs of a container", arguments(1, 1), nil)
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "Follow log output")
	f.StringVar(&since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVarP(&tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	f.BoolVarP(&timestamps, "timestamps", "t", false, "Show timestamps")
	f.StringVar(&until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.BoolVar(&details, "details", false, "Show extra details provided to logs")
	c.ValidArgsFunction = a.completeContainers()
	c.RunE = func(c *cobra.Command, args []string) error {
		o := manager.LogOptions{Follow: follow, Timestamps: timestamps, Details: details, Out: a.out, Err: a.err}
		var err error
		if o.Tail, err = parseTail(tail); err != nil {
			return err
		}
		if o.Since, o.Until, err = parseSpan(since, until, time.Now()); err != nil {
			return err
		}
		return a.logs(c.Context(), args[0], o)
	}
	return c
}

func (a *app) logs(ctx context.Context, ref string, o manager.LogOptions) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	return m.Logs(ctx, ref, o)
}

// parseTail reads the number of lines; negative is all of them.
func parseTail(s string) (int, error) {
	if s == "all" || s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("invalid --tail %q: must be a number of lines or all", s)
	}
	return max(n, -1), nil
}

// timeLayouts are docker's, the most precise first; without a zone the time is local.
func timeLayouts() []string {
	return []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	}
}

// parseSpan reads --since and --until.
func parseSpan(since, until string, now time.Time) (from, to time.Time, err error) {
	if from, err = parseTime(since, now); err != nil {
		return from, to, fmt.Errorf(`invalid value for "since": %w`, err)
	}
	if to, err = parseTime(until, now); err != nil {
		return from, to, fmt.Errorf(`invalid value for "until": %w`, err)
	}
	return from, to, nil
}

// parseTime reads a time: seconds since the epoch, a date, or a duration before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return now.Add(-d), nil
	}
	for _, layout := range timeLayouts() {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	seconds, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || len(fraction) > 9 || strings.ContainsAny(fraction, "+-") {
		return time.Time{}, fmt.Errorf("cannot read %q as a time or a duration", s)
	}
	nsec, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read %q as a time or a duration", s)
	}
	return time.Unix(sec, nsec), nil
}
