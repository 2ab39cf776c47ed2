package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/manager"
)

func TestPSColumns(t *testing.T) {
	titles := func(columns []psColumn) string {
		var all []string
		for _, c := range columns {
			all = append(all, c.title)
		}
		return strings.Join(all, " ")
	}
	const full = "UID PID PPID C STIME TTY TIME CMD"
	for options, want := range map[string]string{
		"": full, "-ef": full, "-e -f": full, "-e": full,
		"-o pid,args": "PID COMMAND", "-eo pid -o user": "PID USER", "-opid,cmd": "PID CMD", "-efo uid,time": "UID TIME",
	} {
		got, err := psColumns(strings.Fields(options))
		if err != nil || titles(got) != want {
			t.Errorf("%q: %q, %v; want %q", options, titles(got), err, want)
		}
	}
	for options, want := range map[string]string{
		"aux": `ps option "aux" is not supported`, "-ex": `"-ex"`, "-": `"-"`, "--forest": `"--forest"`,
		"-o": "needs a list", "-o pid,rss": `ps column "rss" is not supported`,
	} {
		if _, err := psColumns(strings.Fields(options)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", options, err, want)
		}
	}
}

func TestPrintProcesses(t *testing.T) {
	now := time.Date(2026, 3, 4, 15, 0, 0, 0, time.Local)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	a := &app{out: out}
	err = a.printProcesses(psFull(), []manager.Process{
		{PID: 7, PPID: 1, TTY: "?", Started: now.Add(-time.Hour), CPU: 30 * time.Minute, Command: "sleep\x1b[2J 1"},
		{PID: 8, PPID: 7, UID: 1000, TTY: "pts/0", Started: now.Add(-48 * time.Hour), CPU: 25*time.Hour + 61*time.Second, Command: "x"},
		{PID: 9, PPID: 7, TTY: "?", Started: now.AddDate(-1, 0, 0), Command: "[y]"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"UID PID PPID C STIME TTY TIME CMD",
		`root 7 1 50 14:00 ? 00:30:00 sleep\x1b[2J 1`,
		"1000 8 7 52 Mar02 pts/0 1-01:01:01 x",
		"root 9 7 0 2025 ? 00:00:00 [y]",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
