package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// maxBuffer is how much is collected for one write, in bytes.
const maxBuffer = 64 << 10

// Writer appends to a log. Not safe for concurrent use.
type Writer struct {
	c    Config
	f    *os.File
	size int64 // of the present file
	torn bool  // it ends within a line
	buf  []byte
	seq  int // number of the newest full file

	compressing sync.WaitGroup
}

// Create opens the log at c.Path for appending, with mode 0600.
func Create(c Config) (*Writer, error) {
	w := &Writer{c: c}
	for _, n := range numbers(c.Path) {
		w.seq = max(w.seq, n)
	}
	if err := w.open(); err != nil {
		return nil, err
	}
	w.prune()
	return w, nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.c.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.f, w.size, w.torn = f, st.Size(), false
	if w.size > 0 { // a writer that was killed may have left half a line
		var last [1]byte
		_, err := f.ReadAt(last[:], w.size-1)
		w.torn = err == nil && last[0] != '\n'
	}
	return nil
}

// Write takes an entry. It is in the file after Flush at the latest.
func (w *Writer) Write(e Entry) error {
	before := len(w.buf)
	w.buf = w.c.Format.appendEntry(w.buf, e)
	var err error
	if held := w.size + int64(before); w.c.MaxSize > 0 && held > 0 && w.size+int64(len(w.buf)) > w.c.MaxSize {
		line := w.buf[before:]
		w.buf = w.buf[:before]
		err = w.Flush()
		// A file that cannot be followed by another one grows no more.
		if rerr := w.rotate(); rerr != nil {
			return errors.Join(err, rerr)
		}
		w.buf = append(w.buf, line...)
	}
	if len(w.buf) >= maxBuffer {
		err = errors.Join(err, w.Flush())
	}
	return err
}

// Flush writes what was taken. What a full disk has no place for is lost, whole
// lines of it; what comes later is written when there is place again.
func (w *Writer) Flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	defer func() { w.buf = w.buf[:0] }()
	if w.torn {
		if _, err := w.f.Write([]byte{'\n'}); err != nil {
			return fmt.Errorf("write log: %w", err)
		}
		w.size, w.torn = w.size+1, false
	}
	n, err := w.f.Write(w.buf)
	if err == nil {
		w.size += int64(n)
		return nil
	}
	if n > 0 && w.f.Truncate(w.size) != nil {
		w.size, w.torn = w.size+int64(n), true
	}
	return fmt.Errorf("write log: %w", err)
}

// rotate makes the present file the newest of the full ones.
func (w *Writer) rotate() error {
	w.compressing.Wait()
	full := numbered(w.c.Path, w.seq+1)
	if err := os.Rename(w.c.Path, full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate log: %w", err)
	}
	old, size, torn := w.f, w.size, w.torn
	if err := w.open(); err != nil {
		w.f, w.size, w.torn = old, size, torn
		return errors.Join(err, os.Rename(full, w.c.Path))
	}
	old.Close()
	w.seq++
	w.prune()
	if w.c.Compress && w.c.MaxFiles > 1 {
		w.compressing.Go(func() { compress(full) })
	}
	return nil
}

// prune removes the oldest files, and what a crash left of a compression.
func (w *Writer) prune() {
	for _, n := range numbers(w.c.Path) {
		full := numbered(w.c.Path, n)
		os.Remove(full + gzTemporary)
		if n <= w.seq-max(0, w.c.MaxFiles-1) {
			os.Remove(full)
			os.Remove(full + gz)
		}
	}
}

// Close writes what is left and closes the file.
func (w *Writer) Close() error {
	err := w.Flush()
	w.compressing.Wait()
	return errors.Join(err, w.f.Close())
}
