package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	// statsInterval lies between two looks at a container.
	statsInterval = time.Second
	// statsPatience is for a guest that does not answer. A table that goes on
	// says so sooner: a late answer is in the next one.
	statsPatience     = 10 * time.Second
	statsLivePatience = 3 * time.Second
)

type statsFlags struct {
	all, noStream, noTrunc bool
	format                 string
}

func newStatsCommand(a *app) *cobra.Command {
	var flags statsFlags
	c := newVerb("stats [OPTIONS] [CONTAINER...]", "Display a live stream of container resource usage statistics", arguments(0, -1), nil)
	f := c.Flags()
	f.BoolVarP(&flags.all, "all", "a", false, "Show all containers (default shows just running)")
	f.StringVar(&flags.format, "format", "", formatHelp)
	f.BoolVar(&flags.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Do not truncate output")
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning, manager.StatePaused)
	c.RunE = func(c *cobra.Command, args []string) error { return a.stats(c.Context(), args, flags) }
	return c
}

func (a *app) stats(ctx context.Context, refs []string, flags statsFlags) error {
	format := parseRowFormat(flags.format, statsTable)
	if _, err := parseTemplate(format.template); err != nil {
		return err
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	b := &statsBoard{m: m, all: flags.all, named: len(refs) > 0}
	defer b.close()
	for _, ref := range refs {
		meter, err := m.Meter(ref)
		if err != nil {
			return err
		}
		b.entries = append(b.entries, &statsEntry{ref: ref, meter: meter})
	}
	view := statsView{out: a.out, format: format, noTrunc: flags.noTrunc, redraw: !flags.noStream && isTerminal(a.out)}
	if flags.noStream {
		return b.once(ctx, &view)
	}
	return b.live(ctx, &view)
}

// statsBoard follows containers: those that were named, or those that run, as
// they come and go.
type statsBoard struct {
	m          *manager.Manager
	all, named bool
	entries    []*statsEntry
	followers  sync.WaitGroup
}

// statsEntry is one container. Each is read by itself, so that a guest that does
// not answer holds up no other.
type statsEntry struct {
	ref    string // as it was named; "" for one that was found
	meter  *manager.Meter
	cancel context.CancelFunc // of its follower, nil before there is one

	mu    sync.Mutex
	read  bool
	usage manager.Usage
	cpu   float64 // percent, since the look before
	gone  bool
}

// look reads once, and reports whether the container is still there.
func (e *statsEntry) look(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	u, err := e.meter.Read(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if errors.Is(err, manager.ErrNotFound) {
		e.gone = true
		return false
	}
	if err != nil {
		return true
	}
	e.cpu = 0
	if before := e.usage.Guest; before != nil && u.Guest != nil {
		e.cpu = u.Guest.CPUPercent(*before)
	}
	e.usage, e.read = u, true
	return true
}

// answered reports whether the guest told its numbers in the last look.
func (e *statsEntry) answered() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.usage.Guest != nil
}

func (e *statsEntry) isGone() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gone
}

func (e *statsEntry) row(noTrunc, escaped bool) statsRow {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.usage
	if u.ID == "" {
		u.ID = e.meter.ID()
	}
	return newStatsRow(e.ref, u, e.cpu, e.read, noTrunc, escaped)
}

// update finds out which containers there are.
func (b *statsBoard) update(ctx context.Context) error {
	if b.named {
		return nil
	}
	list, err := b.m.List(ctx, manager.ListOptions{All: b.all})
	if err != nil {
		return err
	}
	known := map[string]*statsEntry{}
	for _, e := range b.entries {
		known[e.meter.ID()] = e
	}
	var present []*statsEntry
	for _, c := range list {
		e := known[c.ID]
		delete(known, c.ID)
		if e == nil {
			meter, err := b.m.Meter(c.ID)
			if err != nil {
				continue // it has gone just now
			}
			e = &statsEntry{meter: meter}
		}
		present = append(present, e)
	}
	b.entries = present
	for _, e := range known {
		e.end()
	}
	return nil
}

// end stops a follower; it closes its meter itself.
func (e *statsEntry) end() {
	if e.cancel != nil {
		e.cancel()
		return
	}
	e.meter.Close()
}

func (b *statsBoard) close() {
	for _, e := range b.entries {
		e.end()
	}
	b.followers.Wait()
}

// once takes two looks at each container, since the use of a processor shows
// only between two.
func (b *statsBoard) once(ctx context.Context, v *statsView) error {
	if err := b.update(ctx); err != nil {
		return err
	}
	var looks sync.WaitGroup
	for _, e := range b.entries {
		looks.Go(func() {
			if !e.look(ctx, statsPatience) || !e.answered() || !wait(ctx, statsInterval) {
				return
			}
			e.look(ctx, statsPatience)
		})
	}
	looks.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return v.show(b.entries)
}

// live shows a table again and again, until it is interrupted or nothing that
// was named is left.
func (b *statsBoard) live(ctx context.Context, v *statsView) error {
	for {
		if err := b.update(ctx); err != nil {
			return err
		}
		b.follow(ctx)
		if err := v.show(b.entries); err != nil {
			return err
		}
		if !wait(ctx, statsInterval) {
			return context.Cause(ctx)
		}
		b.entries = slices.DeleteFunc(b.entries, (*statsEntry).isGone)
		if b.named && len(b.entries) == 0 {
			return nil
		}
	}
}

// follow starts a follower for each entry that has none.
func (b *statsBoard) follow(ctx context.Context) {
	for _, e := range b.entries {
		if e.cancel != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		e.cancel = cancel
		b.followers.Go(func() {
			defer cancel()
			defer e.meter.Close()
			for e.look(ctx, statsLivePatience) && wait(ctx, statsInterval) {
			}
		})
	}
}

// wait reports whether the time has passed before the end of ctx.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// statsView prints tables, each over the one before on a terminal.
type statsView struct {
	out             *os.File
	format          rowFormat
	noTrunc, redraw bool
	drawn           bool
}

func (v *statsView) show(entries []*statsEntry) error {
	var rows []statsRow
	for _, e := range entries {
		rows = append(rows, e.row(v.noTrunc, v.format.table || isTerminal(v.out)))
	}
	if !v.redraw {
		return writeRows(v.out, v.format, statsHeader(), rows)
	}
	var text bytes.Buffer
	if err := writeRows(&text, v.format, statsHeader(), rows); err != nil {
		return err
	}
	_, height, err := term.GetSize(int(v.out.Fd()))
	if err != nil {
		height = 0
	}
	_, err = io.WriteString(v.out, v.screen(text.String(), height))
	return err
}

// screen is the text over what was there before, as far as the terminal is high.
func (v *statsView) screen(text string, height int) string {
	lines := strings.SplitAfter(text, "\n")
	if height > 1 && len(lines) > height {
		lines = lines[:height-1] // the last one is the cursor's
	}
	clear := "\x1b[H"
	if !v.drawn {
		clear = "\x1b[2J\x1b[H"
	}
	v.drawn = true
	return clear + strings.ReplaceAll(strings.Join(lines, ""), "\n", "\x1b[K\n") + "\x1b[J"
}
