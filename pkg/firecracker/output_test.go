package firecracker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLastComplaint(t *testing.T) {
	const line = "2026-11-24T04:33:11.43 [abc:main:"
	for _, tt := range []struct{ log, want string }{
		{"", ""},
		{"no log line at all\n", ""},
		{line + "INFO] Running\n", ""},
		{line + "ERROR] first\n" + line + "INFO] then\nmore of then\n", "first"},
		{line + "ERROR] first\n" + line + "WARN] second\n", "second"},
		{line + "ERROR:src/x.rs:1] cause\n" + line + "ERROR] Firecracker exiting with error. exit_code=1\n", "cause"},
		{line + "ERROR] Firecracker panicked at x:\nInvalid\x1b[2J instance\n", "Firecracker panicked at x: Invalid [2J instance"},
		{"cut in the middle] x\n" + line + "ERROR] a", "a"},
		{line + "ERROR] " + strings.Repeat("a", 5000), strings.Repeat("a", maxLine)},
	} {
		if got := lastComplaint(tt.log); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.log, got, tt.want)
		}
	}
}

func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, []byte("old and longer than the new"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := openConsole(path, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"1234", "5678", "90abc", "def"} {
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("write %q: %d, %v", s, n, err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "1234567890" || c.dropped != 6 {
		t.Errorf("console %q, dropped %d, %v", text, c.dropped, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// A file that cannot be written stops nothing.
	c.file.Close()
	c.left = 10
	if n, err := c.Write([]byte("xyz")); n != 3 || err != nil || c.dropped != 9 {
		t.Errorf("write to a broken file: %d, %v, dropped %d", n, err, c.dropped)
	}
}

func TestConsolePanicAcrossWrites(t *testing.T) {
	c, err := openConsole(filepath.Join(t.TempDir(), "c"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.file.Close()
	for _, b := range []byte("x\n[    1.0] Kernel panic - not syncing: VFS\nKernel panic - not syncing: second") {
		_, _ = c.Write([]byte{b})
	}
	c.lines.flush()
	if c.panic != "Kernel panic - not syncing: VFS" {
		t.Errorf("panic %q", c.panic)
	}
}

func TestLines(t *testing.T) {
	var got []string
	l := &lines{each: func(s string) { got = append(got, s) }}
	for _, s := range []string{"a", "b\nc\n\n", strings.Repeat("d", maxLine), "ee\nf"} {
		_, _ = l.Write([]byte(s))
	}
	l.flush()
	l.flush()
	if want := []string{"ab", "c", strings.Repeat("d", maxLine), "f"}; !slices.Equal(got, want) {
		t.Errorf("lines %q", got)
	}
}

func TestTail(t *testing.T) {
	last, first := &tail{max: 4}, &tail{max: 4, head: true}
	for _, s := range []string{"ab", "cde", "fghijkl", "m"} {
		for _, w := range []*tail{last, first} {
			if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("write: %d, %v", n, err)
			}
		}
	}
	if last.String() != "jklm" || first.String() != "abcd" {
		t.Errorf("tail %q, head %q", last, first)
	}
}
