package qemu

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tl := newTail(r)
	w.WriteString(strings.Repeat("noise\n", 10_000))
	w.WriteString("first line\x1b[31m\nlast line\n")
	w.Close()
	tl.finish()
	tl.finish()
	got := tl.String()
	if !strings.HasSuffix(got, "; first line[31m; last line") || len(got) > maxReason+len("…") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if len(tl.buf) > maxStderr {
		t.Errorf("%d bytes kept", len(tl.buf))
	}
}

func TestConsole(t *testing.T) {
	for _, test := range []struct {
		limit   int64
		want    string
		dropped int64
	}{{0, "", 10}, {4, "0123", 6}, {10, "0123456789", 0}, {100, "0123456789", 0}} {
		a, b := net.Pipe()
		path := filepath.Join(t.TempDir(), "console")
		c, err := openConsole(path, test.limit, a)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"01", "2345", "6789"} {
			b.Write([]byte(s))
		}
		b.Close()
		if err := c.finish(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != test.want || c.dropped.Load() != test.dropped {
			t.Errorf("limit %d: %q, %d dropped, %v", test.limit, got, c.dropped.Load(), err)
		}
	}
}

func TestConsoleFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "console")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer b.Close()
	if c, err := openConsole(link, 10, a); err == nil {
		b.Close()
		c.finish()
		t.Error("a link is followed")
	}
	if got, _ := os.ReadFile(victim); string(got) != "precious" {
		t.Errorf("victim: %q", got)
	}
}
