package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain – text é", "plain – text é"},
		{"a\x1b[31mred", `a\x1b[31mred`},
		{"two\nlines\r", `two\x0alines\x0d`},
		{"tab\t", `tab\x09`},
		{"c1 \u009b2J", `c1 \u009b2J`},
		{"bidi \u202egnp", `bidi \u202egnp`},
		{"del \x7f nul \x00", `del \x7f nul \x00`},
		{"bad \xff\xc3", `bad \xff\xc3`},
	}
	for _, tt := range tests {
		if got := escape(tt.in); got != tt.want {
			t.Errorf("escape(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if got, want := escapeLines("boot failed\nlast\t\x1b[2J line\r\n\n"), "boot failed\n  last    \\x1b[2J line"; got != want {
		t.Errorf("escapeLines: %q, want %q", got, want)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b]0;title\x07")
	f.Add("\xc2\x9b\xff\u2066")
	f.Fuzz(func(t *testing.T, s string) {
		got := escape(s)
		if !utf8.ValidString(got) || strings.IndexFunc(got, unsafeRune) >= 0 {
			t.Errorf("escape(%q) = %q", s, got)
		}
		if strings.ContainsAny(escapeLines(s), "\x1b\u009b\r\x00") {
			t.Errorf("escapeLines(%q) = %q", s, escapeLines(s))
		}
		text, err := marshalLine(s)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexFunc(text, unsafeRune) >= 0 {
			t.Errorf("JSON of %q holds %q", s, text)
		}
		var back string
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("JSON of %q is broken: %v", s, err)
		}
		if utf8.ValidString(s) && back != s {
			t.Errorf("JSON of %q reads as %q", s, back)
		}
	})
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	local := func(y, mo, d, h, mi, s, ns int) time.Time {
		return time.Date(y, time.Month(mo), d, h, mi, s, ns, time.Local)
	}
	tests := []struct {
		in   string
		want time.Time
	}{
		{"", time.Time{}},
		{"42m", now.Add(-42 * time.Minute)},
		{"1h30m", now.Add(-90 * time.Minute)},
		{"0", time.Unix(0, 0)},
		{"1136073600", time.Unix(1136073600, 0)},
		{"1136073600.000000001", time.Unix(1136073600, 1)},
		{"1136073600.5", time.Unix(1136073600, 500000000)},
		{"2013-01-02T13:23:37Z", time.Date(2013, 1, 2, 13, 23, 37, 0, time.UTC)},
		{"2013-01-02T13:23:37.25+02:00", time.Date(2013, 1, 2, 11, 23, 37, 250000000, time.UTC)},
		{"2013-01-02T13:23:37", local(2013, 1, 2, 13, 23, 37, 0)},
		{"2013-01-02T13:23:37.000000009", local(2013, 1, 2, 13, 23, 37, 9)},
		{"2013-01-02T13:23", local(2013, 1, 2, 13, 23, 0, 0)},
		{"2013-01-02T13", local(2013, 1, 2, 13, 0, 0, 0)},
		{"2013-01-02", local(2013, 1, 2, 0, 0, 0, 0)},
		{"2013-01-02Z", time.Date(2013, 1, 2, 0, 0, 0, 0, time.UTC)},
	}
	for _, tt := range tests {
		got, err := parseTime(tt.in, now)
		if err != nil || !got.Equal(tt.want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"yesterday", "2013-13-01", "1.2.3", "1.+5", "12x", "1.0000000001"} {
		if got, err := parseTime(in, now); err == nil {
			t.Errorf("parseTime(%q) = %v", in, got)
		}
	}
}

func TestParseTail(t *testing.T) {
	for in, want := range map[string]int{"all": -1, "": -1, "0": 0, "10": 10, "-5": -1} {
		if got, err := parseTail(in); err != nil || got != want {
			t.Errorf("parseTail(%q) = %d, %v", in, got, err)
		}
	}
	if _, err := parseTail("ten"); err == nil {
		t.Error("parseTail took ten")
	}
}

func TestParseDetachKeys(t *testing.T) {
	for in, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-@": "\x00", "ctrl-[": "\x1b", "ctrl-_": "\x1f",
		"ctrl-a,x,DEL": "\x01x\x7f", "ctrl-\\": "\x1c", "^": "^",
	} {
		if got, err := parseDetachKeys(in); err != nil || string(got) != want {
			t.Errorf("parseDetachKeys(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-A", "ctrl-pp", "foo", "a,,b", "ctrl-1", "é"} {
		if got, err := parseDetachKeys(in); err == nil {
			t.Errorf("parseDetachKeys(%q) = %q", in, got)
		}
	}
}

func TestFamiliarName(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io/library/busybox:latest": "busybox:latest", "docker.io/foo/bar": "foo/bar", "docker.io/library/a/b": "library/a/b",
		"index.docker.io/library/busybox": "busybox", "127.0.0.1:5000/busybox:1": "127.0.0.1:5000/busybox:1", "quay.io/a/b": "quay.io/a/b",
	} {
		if got := familiarName(in); got != want {
			t.Errorf("familiarName(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string][2]string{
		"busybox": {"busybox", ""}, "busybox:1": {"busybox", "1"}, "h:5000/a": {"h:5000/a", ""}, "h:5000/a:2": {"h:5000/a", "2"},
		"a@sha256:00": {"a", ""}, "a:1@sha256:00": {"a", "1"},
	} {
		if r, tag := splitName(in); r != want[0] || tag != want[1] {
			t.Errorf("splitName(%q) = %q, %q", in, r, tag)
		}
	}
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"busybox", "docker.io/library/busybox:1", true}, {"busy*", "docker.io/library/busybox:1", true},
		{"busybox:1", "docker.io/library/busybox:1", true}, {"busybox:2", "docker.io/library/busybox:1", false},
		{"busybox:1.*", "docker.io/library/busybox:1.36", true}, {"busy", "docker.io/library/busybox:1", false},
		{"docker.io/library/busybox", "docker.io/library/busybox:1", true}, {"[", "x", false},
		{"*/busybox", "127.0.0.1:5000/busybox:1", true}, {"*", "a/b:1", false},
	} {
		if got := matchesName(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matchesName(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	log, err := newLogger(&b, "text", false)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("hidden")
	log.Info("hidden too")
	log.With("vm", "a\x1b").Warn("no KVM", "err", fmt.Errorf("x\ny"))
	if got, want := b.String(), "micropod: warning: no KVM (vm: a\\x1b, err: x\\x0ay)\n"; got != want {
		t.Errorf("plain log: %q, want %q", got, want)
	}
	b.Reset()
	log, _ = newLogger(&b, "json", true)
	log.Debug("phase done", "phase", "kernel", "duration", time.Second)
	var line struct {
		Level, Msg, Phase string
		Duration          int64
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Msg != "phase done" || line.Duration != int64(time.Second) || line.Level != slog.LevelDebug.String() {
		t.Errorf("json log: %q: %v", b.String(), err)
	}
	if _, err := newLogger(&b, "xml", false); err == nil {
		t.Error("log format xml was accepted")
	}
}
