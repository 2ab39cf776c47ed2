// Package logfile writes and reads a container's log.
//
// A line is "TIME STREAM TAG TEXT\n" in the format of the Kubernetes CRI
// (kubelet's logging format): TIME is RFC 3339 with nanoseconds, STREAM is
// stdout or stderr, TAG is F for a full line and P for a piece of one. TEXT
// is kept byte for byte, whatever its encoding.
//
// The file is bounded: at its limit it becomes PATH.1 (the one before is
// dropped) and a new one begins, so a container that prints without end fills
// no disk.
package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Stream is where a line was written.
type Stream string

// Streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// DefaultLimit bounds one file, in bytes; a container keeps at most two.
const DefaultLimit = 10 << 20

// maxText is the longest piece of a line that is held back while its end is
// awaited, in bytes, as in docker.
const maxText = 16 << 10

// Rotated names the older file of a log.
func Rotated(path string) string { return path + ".1" }

// Writer appends to a log. Safe for concurrent use.
type Writer struct {
	path  string
	limit int64

	mu      sync.Mutex
	f       *os.File
	size    int64
	pending map[Stream]*piece
}

// piece is the beginning of a line whose end has not come yet.
type piece struct {
	text []byte
	at   time.Time
}

// Create opens the log at path for appending, with mode 0600.
func Create(path string, limit int64) (*Writer, error) {
	w := &Writer{path: path, limit: limit, pending: map[Stream]*piece{}}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.f, w.size = f, st.Size()
	return nil
}

// Write records bytes that a stream delivered at a time. Complete lines are
// written at once, the rest waits for its end.
func (w *Writer) Write(s Stream, at time.Time, b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []byte
	p := w.pending[s]
	if p == nil {
		p = &piece{}
		w.pending[s] = p
	}
	for len(b) > 0 {
		if len(p.text) == 0 {
			p.at = at
		}
		line, rest, full := bytes.Cut(b, []byte{'\n'})
		if room := maxText - len(p.text); len(line) > room {
			line, rest, full = b[:room], b[room:], false
		}
		p.text = append(p.text, line...)
		b = rest
		if full || len(p.text) == maxText {
			out = appendLine(out, s, p, full)
			p.text = p.text[:0]
		}
	}
	return w.append(out)
}

func appendLine(out []byte, s Stream, p *piece, full bool) []byte {
	tag := " P "
	if full {
		tag = " F "
	}
	out = p.at.UTC().AppendFormat(out, time.RFC3339Nano)
	out = append(out, ' ')
	out = append(out, s...)
	out = append(out, tag...)
	out = append(out, p.text...)
	return append(out, '\n')
}

// append writes whole lines, rotating first where they would not fit.
func (w *Writer) append(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if w.size > 0 && w.size+int64(len(b)) > w.limit {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.f.Write(b)
	w.size += int64(n)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

func (w *Writer) rotate() error {
	if err := os.Rename(w.path, Rotated(w.path)); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if err := w.f.Close(); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	return w.open()
}

// Close writes what waits for the end of its line and closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []byte
	for _, s := range []Stream{Stdout, Stderr} {
		if p := w.pending[s]; p != nil && len(p.text) > 0 {
			out = appendLine(out, s, p, false)
		}
	}
	return errors.Join(w.append(out), w.f.Close())
}
