package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func formats() map[string]Format {
	return map[string]Format{"cri": CRI{}, "json": JSON{Attrs: map[string]string{"k": "<v>"}}}
}

// log is a Writer with the lines of one stream.
type log struct {
	*Writer
	Splitter
	t *testing.T
}

func create(t *testing.T, c Config) *log {
	t.Helper()
	c.Path = filepath.Join(t.TempDir(), "container.log")
	if c.Format == nil {
		c.Format = CRI{}
	}
	w, err := Create(c)
	if err != nil {
		t.Fatal(err)
	}
	return &log{Writer: w, t: t}
}

func (l *log) print(s Stream, at time.Time, text string) {
	l.t.Helper()
	l.Split(s, at, []byte(text), l.entry)
	if err := l.Writer.Flush(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) entry(e Entry) {
	if err := l.Write(e); err != nil {
		l.t.Error(err)
	}
}

func (l *log) close() {
	l.t.Helper()
	l.Splitter.Flush(l.entry)
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
}

func read(t *testing.T, c Config, o Options) string {
	t.Helper()
	var b strings.Builder
	err := Read(context.Background(), c, o, func(l Line) error {
		fmt.Fprintf(&b, "%s:%s", l.Stream, l.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLinesSurvive(t *testing.T) {
	for name, f := range formats() {
		t.Run(name, func(t *testing.T) {
			l := create(t, Config{Format: f, MaxFiles: 1})
			long := strings.Repeat("x", MaxText+5)
			for i, c := range []struct {
				s Stream
				b string
			}{
				{Stdout, "one\ntw"}, {Stderr, "err\n"}, {Stdout, "o\n\n"},
				{Stdout, "\x00\r\x1b[0m<&>\"\\\n"}, {Stdout, long + "\n"}, {Stdout, "end"},
			} {
				l.print(c.s, epoch.Add(time.Duration(i)*time.Second), c.b)
			}
			l.close()
			want := "stdout:one\nstderr:err\nstdout:two\nstdout:\nstdout:\x00\r\x1b[0m<&>\"\\\n" +
				"stdout:" + long[:MaxText] + "stdout:xxxxx\nstdout:end"
			if got := read(t, l.c, Options{Tail: -1}); got != want {
				t.Errorf("read %q\nwant %q", got, want)
			}
			if got := read(t, l.c, Options{Tail: 2}); got != "stdout:xxxxx\nstdout:end" {
				t.Errorf("tail 2: %q", got)
			}
			since := Options{Tail: -1, Since: epoch.Add(time.Second), Until: epoch.Add(2 * time.Second)}
			if got := read(t, l.c, since); got != "stderr:err\nstdout:\n" {
				t.Errorf("since and until: %q", got)
			}
		})
	}
}

// The format is docker's own: what it makes of bytes that are not UTF-8, too.
func TestJSON(t *testing.T) {
	l := create(t, Config{Format: JSON{Attrs: map[string]string{"b": "2", "a": "1"}}, MaxFiles: 1})
	l.print(Stderr, epoch, "a\xffb<\n")
	l.close()
	b, err := os.ReadFile(l.c.Path)
	want := `{"log":"a\ufffdb\u003c\n","stream":"stderr","attrs":{"a":"1","b":"2"},"time":"2026-01-02T03:04:05.000000006Z"}` + "\n"
	if err != nil || string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
}

// A long line is cut every MaxText bytes, and its pieces belong together.
func TestSplit(t *testing.T) {
	var got []Entry
	var s Splitter
	keep := func(e Entry) {
		e.Text = bytes.Clone(e.Text)
		got = append(got, e)
	}
	s.Split(Stdout, epoch, bytes.Repeat([]byte("a"), MaxText+1), keep)
	s.Split(Stdout, epoch.Add(time.Hour), bytes.Repeat([]byte("b"), MaxText), keep)
	s.Split(Stdout, epoch.Add(time.Hour), []byte("c\nshort\nrest"), keep)
	s.Flush(keep)
	want := []struct {
		size, piece int
		last        bool
		late        bool
	}{{MaxText, 1, false, false}, {MaxText, 2, false, false}, {2, 3, true, false}, {5, 0, false, true}, {4, 1, false, true}}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i, w := range want {
		e := got[i]
		if len(e.Text) != w.size || e.Piece != w.piece || e.Last != w.last || e.At.After(epoch) != w.late || (e.Line != "") != (w.piece > 0) {
			t.Errorf("entry %d: %d bytes, piece %d, last %v, at %v, line %q; want %+v", i, len(e.Text), e.Piece, e.Last, e.At, e.Line, w)
		}
	}
	if got[0].Line != got[2].Line || got[0].Line == got[4].Line {
		t.Error("pieces of one line have one id, and no other line has it")
	}
}

// A line of exactly MaxText bytes is not known to end there.
func TestSplitAtTheLimit(t *testing.T) {
	var got []string
	var s Splitter
	s.Split(Stdout, epoch, append(bytes.Repeat([]byte("a"), MaxText), '\n'), func(e Entry) {
		got = append(got, fmt.Sprintf("%d/%d/%v", len(e.Text), e.Piece, e.Last))
	})
	if want := fmt.Sprintf("[%d/1/false 0/2/true]", MaxText); fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func files(t *testing.T, c Config) map[string]int64 {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(c.Path))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int64{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info, err)
		}
		all[e.Name()] = info.Size()
	}
	return all
}

func TestSizeIsBounded(t *testing.T) {
	for _, c := range []Config{
		{MaxSize: 4096, MaxFiles: 1}, {MaxSize: 4096, MaxFiles: 2}, {MaxSize: 4096, MaxFiles: 5},
		{MaxSize: 4096, MaxFiles: 3, Compress: true}, {MaxSize: 4096, MaxFiles: 3, Format: JSON{}},
	} {
		t.Run(fmt.Sprintf("%d files %v %T", c.MaxFiles, c.Compress, c.Format), func(t *testing.T) {
			l := create(t, c)
			for i := range 2000 {
				l.print(Stdout, epoch, fmt.Sprintf("line %04d\n", i))
			}
			l.close()
			all := files(t, l.c)
			if len(all) != c.MaxFiles {
				t.Errorf("%d files, want %d: %v", len(all), c.MaxFiles, all)
			}
			zipped := 0
			for name, size := range all {
				if size > c.MaxSize {
					t.Errorf("%s has %d bytes", name, size)
				}
				if strings.HasSuffix(name, gz) {
					zipped++
				}
			}
			if c.Compress && zipped != c.MaxFiles-1 {
				t.Errorf("%d files are compressed", zipped)
			}
			checkRun(t, read(t, l.c, Options{Tail: -1}), 1999, 40*(c.MaxFiles-1)+1)
			checkRun(t, read(t, l.c, Options{Tail: 30}), 1999, 30)
			if n := strings.Count(read(t, l.c, Options{Tail: 30}), "\n"); c.MaxFiles > 1 && n != 30 {
				t.Errorf("--tail 30 has %d lines", n)
			}
		})
	}
}

// checkRun demands consecutive lines up to the last, and at least so many.
func checkRun(t *testing.T, got string, last, least int) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(lines) < least && least <= 30 || len(lines) == 0 {
		t.Fatalf("%d lines, want %d", len(lines), least)
	}
	for i, line := range lines {
		if want := fmt.Sprintf("stdout:line %04d", last-len(lines)+1+i); line != want {
			t.Fatalf("line %d of %d is %q, want %q", i, len(lines), line, want)
		}
	}
}

// TestFollowThroughRotations has a reader that is told of growth only now and
// then: several files may be full meanwhile, and be compressed.
func TestFollowThroughRotations(t *testing.T) {
	for _, every := range []int{1, 7, 300} {
		for _, zip := range []bool{false, true} {
			l := create(t, Config{MaxSize: 1024, MaxFiles: 1000, Compress: zip})
			grown := make(chan struct{})
			done := make(chan error)
			var got []string
			go func() {
				done <- Read(context.Background(), l.c, Options{Tail: 0, Grown: grown}, func(l Line) error {
					got = append(got, string(l.Text))
					return nil
				})
			}()
			grown <- struct{}{} // it has begun
			const lines = 1000
			for i := range lines {
				l.print(Stdout, epoch, fmt.Sprintf("line %d\n", i))
				if i%every == 0 {
					grown <- struct{}{}
				}
			}
			l.close()
			close(grown)
			if err := <-done; err != nil {
				t.Error(err)
			}
			for i := range got {
				if want := fmt.Sprintf("line %d\n", i); got[i] != want {
					t.Fatalf("every %d: line %d is %q", every, i, got[i])
				}
			}
			if len(got) != lines {
				t.Errorf("every %d: %d lines of %d", every, len(got), lines)
			}
		}
	}
}

// A log goes on where another writer left it, even in the middle of a line.
func TestGoesOn(t *testing.T) {
	l := create(t, Config{MaxSize: 1024, MaxFiles: 1000})
	for i := range 50 {
		l.print(Stdout, epoch, fmt.Sprintf("line %04d\n", i))
	}
	l.close()
	f, err := os.OpenFile(l.c.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("2026-01-02T03:0") // killed
	f.Close()
	if l.Writer, err = Create(l.c); err != nil {
		t.Fatal(err)
	}
	for i := 50; i < 100; i++ {
		l.print(Stdout, epoch, fmt.Sprintf("line %04d\n", i))
	}
	l.close()
	got := read(t, l.c, Options{Tail: -1})
	checkRun(t, got, 99, 30)
	if n := strings.Count(got, "\n"); n != 100 {
		t.Errorf("%d lines", n)
	}
}

// A full disk costs what it has no place for, and nothing else.
func TestFullDisk(t *testing.T) {
	l := create(t, Config{MaxFiles: 1})
	l.print(Stdout, epoch, "before\n")
	limit := func(n uint64) {
		var r unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &r); err != nil {
			t.Fatal(err)
		}
		r.Cur = n
		if n == 0 {
			r.Cur = r.Max
		}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &r); err != nil {
			t.Fatal(err)
		}
	}
	limit(uint64(l.size) + 60)
	defer limit(0)
	var failed error
	l.Split(Stdout, epoch, []byte("fits\nthis one is lost, for it has more bytes than there are\n"), func(e Entry) {
		failed = errors.Join(failed, l.Write(e), l.Writer.Flush())
	})
	limit(0)
	if failed == nil {
		t.Fatal("the disk was not full")
	}
	l.print(Stdout, epoch, "after\n")
	l.close()
	if got := read(t, l.c, Options{Tail: -1}); got != "stdout:before\nstdout:fits\nstdout:after\n" {
		t.Errorf("read %q", got)
	}
}

func TestNoLogIsEmpty(t *testing.T) {
	for _, tail := range []int{-1, 0, 5} {
		c := Config{Path: filepath.Join(t.TempDir(), "none"), Format: CRI{}}
		if got := read(t, c, Options{Tail: tail}); got != "" {
			t.Errorf("read %q", got)
		}
	}
}

// A full file that is damaged hides no other.
func TestDamagedFile(t *testing.T) {
	c := Config{Path: filepath.Join(t.TempDir(), "log"), Format: CRI{}}
	for name, text := range map[string]string{
		"log": "2026-01-02T03:04:05Z stdout F new\n", "log.1": "2026-01-02T03:04:05Z stdout F old\n",
		"log.2": strings.Repeat("x", 1<<20), "log.3.gz": "this is not gzip", "log.4x": "", "log.05": "", "log.6.gz.tmp": "",
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(c.Path), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, c, Options{Tail: -1}); got != "stdout:old\nstdout:new\n" {
		t.Errorf("read %q", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.000000006Z stdout F one\ngarbage\n2026-01-02T03:04:05Z stderr P x\n"))
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}` + "\n{\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, format := range formats() {
			c := Config{Path: path, Format: format}
			Read(context.Background(), c, Options{Tail: 3}, func(l Line) error {
				if l.Stream != Stdout && l.Stream != Stderr {
					t.Errorf("stream %q", l.Stream)
				}
				return nil
			})
		}
	})
}
