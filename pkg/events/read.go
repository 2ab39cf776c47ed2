package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/state"
)

// Options select events.
type Options struct {
	// Since is the time of the first event; zero is now: nothing that is past.
	Since time.Time
	// Until is the time after the last event; zero is never.
	Until time.Time
}

// Read calls each with the events in the order in which they were written, until
// Options.Until has come, ctx ends or each fails. A time that has come already
// ends it after what there is. It follows the journal from file to file.
func (j *Journal) Read(ctx context.Context, o Options, each func(Event) error) error {
	if !o.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, o.Until)
		defer cancel()
	}
	// Before the first look: what changes from here on is not missed.
	w, err := state.WatchDirs(unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO, filepath.Dir(j.path))
	if err != nil {
		return err
	}
	defer w.Close()
	r := &reader{j: j, o: o, each: each}
	defer r.close()
	if err := r.begin(); err != nil {
		return err
	}
	for {
		if err := r.pass(); err != nil {
			return ended(err)
		}
		err := w.Next(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && !o.Until.IsZero() && !time.Now().Before(o.Until):
			return ended(r.pass())
		case err != nil:
			return err
		}
	}
}

// errEnd says that the last event was read that was asked for.
var errEnd = errors.New("end of the events")

func ended(err error) error {
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

// reader is a place in the journal.
type reader struct {
	j    *Journal
	o    Options
	each func(Event) error

	f       *os.File // nil before the journal's first file is there
	pending []byte   // the beginning of a line
	skip    bool     // the line is too long: up to its end
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
	}
}

// begin opens the oldest file that matters.
func (r *reader) begin() error {
	files, err := r.j.files()
	if err != nil || len(files) == 0 {
		return err
	}
	keep := files[len(files)-1]
	if !r.o.Since.IsZero() {
		keep = files[0]
	}
	for _, f := range files {
		if f != keep {
			f.Close()
		}
	}
	r.f = keep
	if r.o.Since.IsZero() {
		if _, err := keep.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
	return nil
}

// files opens the journal's files, the older one first.
func (j *Journal) files() ([]*os.File, error) {
	for {
		var files []*os.File
		for _, path := range []string{rotated(j.path), j.path} {
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				closeAll(files)
				return nil, fmt.Errorf("read events: %w", err)
			}
			files = append(files, f)
		}
		// One that was rotated between the two looks would be here twice, or the
		// newest be missed.
		if len(files) < 2 || !state.SameFile(files[0], j.path) && state.SameFile(files[0], rotated(j.path)) {
			return files, nil
		}
		closeAll(files)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// pass reads to the end of the newest file.
func (r *reader) pass() error {
	for {
		if err := r.rest(); err != nil {
			return err
		}
		next, err := r.next()
		if err != nil || next == nil {
			return err
		}
		r.close()
		r.f, r.pending, r.skip = next, nil, false
	}
}

// next opens the file that follows the one that was read, once it is complete;
// nil while there is none.
func (r *reader) next() (*os.File, error) {
	if r.f != nil && state.SameFile(r.f, r.j.path) {
		return nil, nil
	}
	// Nobody writes to the old one any more, but somebody may have before it was
	// renamed and after we read it.
	if err := r.rest(); err != nil {
		return nil, err
	}
	files, err := r.j.files()
	if err != nil || len(files) == 0 {
		return nil, err
	}
	first := files[0]
	if len(files) == 2 && r.f != nil && same(r.f, first) {
		first = files[1]
	}
	if r.f != nil && same(r.f, first) {
		closeAll(files)
		return nil, nil // it was rotated, and no new one has been begun
	}
	for _, f := range files {
		if f != first {
			f.Close()
		}
	}
	return first, nil
}

func same(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// rest reads the open file to its end.
func (r *reader) rest() error {
	if r.f == nil {
		return nil
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.f.Read(buf)
		if err := r.lines(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

// lines takes a piece of the file; the beginning of a line waits for its end.
func (r *reader) lines(b []byte) error {
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		if r.skip = r.skip || len(r.pending)+len(line) > maxLine; !r.skip {
			r.pending = append(r.pending, line...)
		}
		if !whole {
			return nil
		}
		line, r.pending = r.pending, nil
		if r.skip {
			r.skip = false
			continue
		}
		if err := r.line(line); err != nil {
			return err
		}
	}
	return nil
}

// line reports one event. What does not decode was torn by a crash.
func (r *reader) line(b []byte) error {
	e, ok := decode(b)
	switch {
	case !ok || e.Time.Before(r.o.Since):
		return nil
	case !r.o.Until.IsZero() && !e.Time.Before(r.o.Until):
		return errEnd
	}
	return r.each(e)
}

func decode(b []byte) (e Event, ok bool) {
	err := json.Unmarshal(b, &e)
	return e, err == nil && e.Type != "" && e.Action != "" && !e.Time.IsZero()
}
