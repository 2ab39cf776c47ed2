package firecracker

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine bounds a line of the log or the console that is looked at.
	maxLine = 1 << 10
	// tailSize is what is kept of the log and of stderr, for errors.
	tailSize = 16 << 10
	// drainTimeout bounds reading on after the VMM has ended: its pipes are
	// at their end by then, unless a child of it lives on.
	drainTimeout = 2 * time.Second
)

// stream copies one output of the VMM to a sink that never fails, so that the
// VMM is never held up.
type stream struct {
	from *os.File
	done chan struct{}
}

func newStream(from *os.File, to io.Writer) *stream {
	s := &stream{from: from, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_, _ = io.Copy(to, from)
	}()
	return s
}

// finish reads what is left, after the VMM has ended, and closes the stream.
func (s *stream) finish() {
	_ = s.from.SetReadDeadline(time.Now().Add(drainTimeout))
	<-s.done
	s.from.Close()
}

// console is the console file: at most limit bytes, the rest is counted.
type console struct {
	file    *os.File
	left    int64
	dropped int64
	lines   lines
	panic   string
}

func openConsole(path string, limit int64) (*console, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil { // it may be an old file
		f.Close()
		return nil, err
	}
	c := &console{file: f, left: limit}
	c.lines.each = c.look
	return c, nil
}

// Write keeps what fits. It returns no error: a full disk must not stop the pump.
func (c *console) Write(p []byte) (int, error) {
	_, _ = c.lines.Write(p)
	keep := p[:max(0, min(int64(len(p)), c.left))]
	n, err := c.file.Write(keep)
	c.left -= int64(n)
	c.dropped += int64(len(p) - n)
	if err != nil {
		c.left = 0
	}
	return len(p), nil
}

// look keeps the first line that tells of a panic of the guest's kernel. The
// guest can print that line at will, so it is for people only.
func (c *console) look(line string) {
	if i := strings.Index(line, "Kernel panic - not syncing"); i >= 0 && c.panic == "" {
		c.panic = oneLine(line[i:], 200)
	}
}

// lines splits a stream into lines of at most maxLine bytes.
type lines struct {
	each func(string)
	part []byte
}

func (l *lines) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		l.part = append(l.part, line[:min(len(line), maxLine-len(l.part))]...)
		if ended {
			l.flush()
		}
		rest = after
	}
	return len(p), nil
}

// flush hands over what there is of a last line.
func (l *lines) flush() {
	if len(l.part) > 0 {
		l.each(string(l.part))
	}
	l.part = l.part[:0]
}

// tail keeps the last max bytes of a stream, or the first with head.
type tail struct {
	max  int
	head bool

	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.head {
		t.buf = append(t.buf, p[:min(len(p), t.max-len(t.buf))]...)
		return len(p), nil
	}
	t.buf = append(t.buf, p[max(0, len(p)-t.max):]...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// logTo forwards lines to log.
func logTo(log *slog.Logger) *lines {
	return &lines{each: func(s string) { log.Debug("firecracker says", "line", oneLine(s, maxLine)) }}
}
