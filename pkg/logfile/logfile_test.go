package logfile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func create(t *testing.T, limit int64) (*Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "container.log")
	w, err := Create(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	return w, path
}

func read(t *testing.T, path string, o Options) string {
	t.Helper()
	var b strings.Builder
	err := Read(context.Background(), path, o, func(l Line) error {
		fmt.Fprintf(&b, "%s:%s", l.Stream, l.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLinesSurviveByteForByte(t *testing.T) {
	w, path := create(t, DefaultLimit)
	long := bytes.Repeat([]byte("x"), maxText+5)
	for i, c := range []struct {
		s Stream
		b []byte
	}{
		{Stdout, []byte("one\ntw")}, {Stderr, []byte("err\n")}, {Stdout, []byte("o\n\n")},
		{Stdout, []byte("\xff\x00\r\x1b[0m\n")}, {Stdout, append(long, '\n')}, {Stdout, []byte("end")},
	} {
		if err := w.Write(c.s, epoch.Add(time.Duration(i)*time.Second), c.b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := "stdout:one\nstderr:err\nstdout:two\nstdout:\nstdout:\xff\x00\r\x1b[0m\n" +
		"stdout:" + string(long[:maxText]) + "stdout:xxxxx\nstdout:end"
	if got := read(t, path, Options{Tail: -1}); got != want {
		t.Errorf("read %q\nwant %q", got, want)
	}
	if got := read(t, path, Options{Tail: 2}); got != "stdout:xxxxx\nstdout:end" {
		t.Errorf("tail 2: %q", got)
	}
	since := Options{Tail: -1, Since: epoch.Add(time.Second), Until: epoch.Add(2 * time.Second)}
	if got := read(t, path, since); got != "stderr:err\nstdout:\n" {
		t.Errorf("since and until: %q", got)
	}
}

func TestSizeIsBounded(t *testing.T) {
	const limit = 4096
	w, path := create(t, limit)
	for i := range 1000 {
		if err := w.Write(Stdout, epoch, fmt.Appendf(nil, "line %04d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	for _, p := range []string{path, Rotated(path)} {
		st, err := os.Stat(p)
		if err != nil || st.Size() > limit || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", p, st, err)
		}
	}
	got := read(t, path, Options{Tail: -1})
	if !strings.HasSuffix(got, "stdout:line 0998\nstdout:line 0999\n") || strings.Count(got, "\n") < 50 {
		t.Errorf("read %q", got)
	}
}

func TestFollowThroughRotation(t *testing.T) {
	w, path := create(t, 4096)
	grown := make(chan struct{}, 1)
	lines := make(chan string, 100)
	done := make(chan error)
	go func() {
		done <- Read(context.Background(), path, Options{Tail: -1, Grown: grown}, func(l Line) error {
			lines <- string(l.Text)
			return nil
		})
	}()
	for i := range 500 {
		want := fmt.Sprintf("line %d\n", i)
		if err := w.Write(Stdout, epoch, []byte(want)); err != nil {
			t.Fatal(err)
		}
		grown <- struct{}{}
		if got := <-lines; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	w.Close()
	close(grown)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNoLogIsEmpty(t *testing.T) {
	if got := read(t, filepath.Join(t.TempDir(), "none"), Options{Tail: -1}); got != "" {
		t.Errorf("read %q", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.000000006Z stdout F one\ngarbage\n2026-01-02T03:04:05Z stderr P x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		Read(context.Background(), path, Options{Tail: 3}, func(l Line) error {
			if l.Stream != Stdout && l.Stream != Stderr {
				t.Errorf("stream %q", l.Stream)
			}
			return nil
		})
	})
}
