package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Line is one entry of a log.
type Line struct {
	At     time.Time
	Stream Stream
	// Text is the line, with its newline if the log has its end. Valid until
	// the next entry is read.
	Text []byte
}

// maxEntry bounds one line of the file: text, time, stream, tag.
const maxEntry = maxText + 128

// Options select entries.
type Options struct {
	// Tail keeps the last entries only; negative keeps all.
	Tail         int
	Since, Until time.Time // zero: no bound
	// Grown delivers a value after the log grew; it is closed when it will
	// not grow any more. nil: what is there now is all.
	Grown <-chan struct{}
}

// Read calls emit for each selected entry of the log at path, oldest first.
// With o.Grown it goes on until that is closed or ctx ends. A log that was
// never written is empty.
func Read(ctx context.Context, path string, o Options, emit func(Line) error) error {
	if o.Tail >= 0 {
		n, err := count(path, o)
		if err != nil {
			return err
		}
		emit = skip(max(0, n-o.Tail), emit)
	}
	r := &reader{path: path, o: o, emit: emit}
	defer r.close()
	if err := r.older(); err != nil {
		return err
	}
	for {
		if err := r.drain(); err != nil {
			return err
		}
		if o.Grown == nil {
			return nil
		}
		select {
		case _, more := <-o.Grown:
			if !more {
				return r.drain()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// count returns how many entries are there now.
func count(path string, o Options) (int, error) {
	n := 0
	o.Grown = nil
	o.Tail = -1
	err := Read(context.Background(), path, o, func(Line) error { n++; return nil })
	return n, err
}

// skip drops the first n entries.
func skip(n int, emit func(Line) error) func(Line) error {
	return func(l Line) error {
		if n > 0 {
			n--
			return nil
		}
		return emit(l)
	}
}

// reader follows a log through its rotations.
type reader struct {
	path string
	o    Options
	emit func(Line) error
	f    *os.File
	buf  *bufio.Reader
	part []byte // beginning of an entry whose end is not written yet
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
	}
}

// older reads the rotated file, and opens the present one beforehand so that a
// rotation in between loses nothing.
func (r *reader) older() error {
	if err := r.open(r.path); err != nil {
		return err
	}
	old, err := os.Open(Rotated(r.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer old.Close()
	if r.f != nil && same(old, r.f) {
		return nil // it was rotated just now: drain reads it
	}
	prev := &reader{path: r.path, o: r.o, emit: r.emit, f: old, buf: bufio.NewReaderSize(old, maxEntry)}
	return prev.entries()
}

func same(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func (r *reader) open(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	r.f, r.buf, r.part = f, bufio.NewReaderSize(f, maxEntry), nil
	return nil
}

// drain reads to the end of the present file, and of the files that took its
// place meanwhile.
func (r *reader) drain() error {
	for {
		if r.f == nil {
			if err := r.open(r.path); err != nil || r.f == nil {
				return err
			}
		}
		if err := r.entries(); err != nil {
			return err
		}
		now, err := os.Stat(r.path)
		if err != nil {
			return nil // between rename and create: the next growth finds it
		}
		if st, err := r.f.Stat(); err != nil || os.SameFile(now, st) {
			return err
		}
		if err := r.entries(); err != nil { // written before the rename
			return err
		}
		r.f.Close()
		r.f = nil
	}
}

// entries emits all complete entries up to the present end of the file.
func (r *reader) entries() error {
	for {
		b, err := r.buf.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(r.part)+len(b) > maxEntry {
			return fmt.Errorf("read log %s: an entry is over %d bytes", r.path, maxEntry)
		}
		if err != nil {
			r.part = append(r.part, b...)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read log: %w", err)
		}
		if len(r.part) > 0 {
			b = append(r.part, b...)
			r.part = nil
		}
		if err := r.one(b); err != nil {
			return err
		}
	}
}

// one emits an entry if it is selected. A damaged one is passed over: the
// lines around it are still good.
func (r *reader) one(b []byte) error {
	l, ok := parse(b)
	if !ok || l.At.Before(r.o.Since) || (!r.o.Until.IsZero() && l.At.After(r.o.Until)) {
		return nil
	}
	return r.emit(l)
}

func parse(b []byte) (Line, bool) {
	at, rest, ok1 := bytes.Cut(b, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tag, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 || len(tag) != 1 {
		return Line{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(at))
	s := Stream(stream)
	if err != nil || (s != Stdout && s != Stderr) {
		return Line{}, false
	}
	switch tag[0] {
	case 'F':
	case 'P':
		text = text[:len(text)-1]
	default:
		return Line{}, false
	}
	return Line{At: t, Stream: s, Text: text}, true
}
