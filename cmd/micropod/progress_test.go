package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/creack/pty"
)

func feed(p *progress) {
	a, b, c := "sha256:aaaaaaaaaaaaaaaaaaaa", "sha256:bbbbbbbbbbbbbbbbbbbb", "sha256:c\x1b[2Jc"
	p.Layer(a, "pulling", 0, 0)
	p.Layer(b, "exists", 10, 10)
	p.Layer(a, "downloading", 1e6, 5e6)
	p.Layer(a, "downloading", 3e6, 5e6)
	p.Layer(c, "downloading", 1, 0)
	p.Layer(a, "extracting", 5e6, 5e6)
	p.Layer(a, "done", 5e6, 5e6)
	p.Layer("d", "preparing", 0, 0)
	p.Layer("d", "pushing", 1, 7)
	p.Layer("d", "pushed", 7, 7)
	p.Layer("e", "present", 0, 0)
	p.Layer("f", "mounted from x\x1b", 0, 0)
	p.finish()
	p.Layer(a, "late", 0, 0)
}

func TestProgressLines(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		name := filepath.Join(t.TempDir(), "out")
		out, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		p := newProgress(out, quiet)
		feed(p)
		out.Close()
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := "aaaaaaaaaaaa: Pulling fs layer\nbbbbbbbbbbbb: Already exists\naaaaaaaaaaaa: Downloading\n" +
			"c\\x1b[2Jc: Downloading\naaaaaaaaaaaa: Extracting\naaaaaaaaaaaa: Pull complete\n" +
			"d: Preparing\nd: Pushing\nd: Pushed\ne: Layer already exists\nf: Mounted from x\\x1b\n"
		if quiet {
			want = ""
		}
		if string(got) != want {
			t.Errorf("quiet %v: %q, want %q", quiet, got, want)
		}
		if !p.fetched() {
			t.Error("a layer came, and fetched says no")
		}
	}
}

func TestProgressBars(t *testing.T) {
	master, tty := openPTY(t)
	if err := pty.Setsize(master, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
		t.Fatal(err)
	}
	shown := &screen{}
	go shown.read(master)
	feed(newProgress(tty, false))
	if _, err := io.WriteString(tty, "end\n"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`aaaaaaaaaaaa: Pull complete`, `bbbbbbbbbbbb: Already exists`, `c\\x1b\[2Jc: Downloading`, `d: Pushed`, `f: Mounted from x\\x1b`, `(?m)^end`} {
		re := regexp.MustCompile(want)
		if !eventually(time.Minute, func() bool { return re.Match(shown.all()) }) {
			t.Errorf("the terminal never showed %s but %q", want, shown.all())
		}
	}
}
