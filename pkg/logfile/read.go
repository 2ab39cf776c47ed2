package logfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Line is an entry that was read.
type Line struct {
	At     time.Time
	Stream Stream
	// Text is the line, with its newline if the log has its end. Valid until
	// the next entry is read.
	Text []byte
}

func (l Line) sound() bool { return l.Stream == Stdout || l.Stream == Stderr }

// Options select entries.
type Options struct {
	// Tail keeps the last entries only; negative keeps all.
	Tail         int
	Since, Until time.Time // zero: no bound
	// Grown delivers a value after the log grew; it is closed when it will
	// not grow any more. nil: what is there now is all.
	Grown <-chan struct{}
}

func (o Options) selects(l Line) bool {
	return !l.At.Before(o.Since) && (o.Until.IsZero() || !l.At.After(o.Until))
}

// Read calls emit for each selected entry of a log, oldest first. With o.Grown
// it goes on until that is closed or ctx ends. A log that was never written is
// empty.
func Read(ctx context.Context, c Config, o Options, emit func(Line) error) error {
	r := &reader{c: c, next: 1, selected: o.selects, emit: emit}
	if o.Tail >= 0 {
		var err error
		if r.next, r.skip, err = tail(ctx, c, o); err != nil {
			return err
		}
		r.skipIn = r.next
	}
	defer r.close()
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		if o.Grown == nil || ctx.Err() != nil {
			return nil
		}
		select {
		case _, more := <-o.Grown:
			if !more {
				return r.drain(ctx)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// tail finds where the last entries begin: a number, and how many entries of
// that file come before. It looks at no more files than it must.
func tail(ctx context.Context, c Config, o Options) (first, skip int, err error) {
	present := 1
	all := numbers(c.Path)
	if len(all) > 0 {
		present = all[len(all)-1] + 1
	}
	all = append(all, present)
	found := 0
	for i := len(all) - 1; i >= 0 && ctx.Err() == nil; i-- {
		n := 0
		r := &reader{c: c, next: all[i], selected: o.selects, emit: func(Line) error { n++; return nil }}
		if err := r.one(); err != nil {
			return 0, 0, err
		}
		if found += n; found >= o.Tail {
			return all[i], found - o.Tail, nil
		}
	}
	return all[0], 0, nil
}

// reader follows a log through its files.
type reader struct {
	c        Config
	selected func(Line) bool
	emit     func(Line) error
	// next is the number of the file that is read next, or, when the present one
	// is open, the number that it will get.
	next   int
	skipIn int // the first skip selected entries of this file are left out
	skip   int

	f    *os.File // the present file, once the others are read
	buf  *bufio.Reader
	part []byte // beginning of an entry whose end is not written yet
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// one reads the file with the number next, the present one if it has none yet.
func (r *reader) one() error {
	f, err := openFull(r.c.Path, r.next)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(r.c.Path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return passOver(r.whole(f))
}

// whole reads a file to its end.
func (r *reader) whole(f io.Reader) error {
	r.buf, r.part = bufio.NewReaderSize(f, r.c.Format.maxEntry()), nil
	return r.entries()
}

// drain reads to the end of the present file, through all that come before.
func (r *reader) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		if r.f == nil {
			if err := r.forward(ctx); err != nil || r.f == nil {
				return err
			}
		}
		if err := r.entries(); err != nil {
			return err
		}
		now, err := os.Stat(r.c.Path)
		if err != nil {
			return nil // between rename and create: the next growth finds it
		}
		if st, err := r.f.Stat(); err != nil || os.SameFile(now, st) {
			return err
		}
		if err := r.entries(); err != nil { // written before the rename
			return err
		}
		r.close()
		r.next++
	}
	return nil
}

// forward reads the full files from next on and opens the present one.
func (r *reader) forward(ctx context.Context) error {
	for ctx.Err() == nil {
		f, err := os.Open(r.c.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open log: %w", err)
		}
		// Only now: if no file is full that was not read, f is the one after it.
		n, more := r.following()
		if !more {
			if f != nil {
				r.f, r.buf, r.part = f, bufio.NewReaderSize(f, r.c.Format.maxEntry()), nil
			}
			return nil
		}
		if f != nil {
			f.Close()
		}
		r.next = n
		if err := r.full(); err != nil {
			return err
		}
		r.next++
	}
	return nil
}

// following finds the oldest full file that was not read.
func (r *reader) following() (n int, more bool) {
	for _, n := range numbers(r.c.Path) {
		if n >= r.next {
			return n, true
		}
	}
	return 0, false
}

// full reads a full file. One that is dropped meanwhile, or damaged, is passed
// over: the others are still good.
func (r *reader) full() error {
	f, err := openFull(r.c.Path, r.next)
	if err != nil {
		return nil
	}
	defer f.Close()
	return passOver(r.whole(f))
}

func passOver(err error) error {
	var damaged *damagedError
	if errors.As(err, &damaged) {
		return nil
	}
	return err
}

// damagedError is a file that cannot be read to its end.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return fmt.Sprintf("read log: %v", e.err) }
func (e *damagedError) Unwrap() error { return e.err }

// entries emits all complete entries up to the present end of the file.
func (r *reader) entries() error {
	limit := r.c.Format.maxEntry()
	for {
		b, err := r.buf.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(r.part)+len(b) > limit {
			return &damagedError{fmt.Errorf("%s: an entry is over %d bytes", r.c.Path, limit)}
		}
		if err != nil {
			r.part = append(r.part, b...)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return &damagedError{err}
		}
		if len(r.part) > 0 {
			b = append(r.part, b...)
			r.part = nil
		}
		if err := r.entry(b); err != nil {
			return err
		}
	}
}

// entry emits an entry if it is selected. A damaged one is passed over: the
// lines around it are still good.
func (r *reader) entry(b []byte) error {
	l, ok := r.c.Format.parse(b)
	if !ok || !r.selected(l) {
		return nil
	}
	if r.next == r.skipIn && r.skip > 0 {
		r.skip--
		return nil
	}
	return r.emit(l)
}
