package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

type scriptCommand = func(ts *testscript.TestScript, neg bool, args []string)

// scriptCommands are what the scripts have beyond testscript's own.
func scriptCommands() map[string]scriptCommand {
	return map[string]scriptCommand{
		"exitcode": exitCode,
		"setenv":   setFromOutput,
		"lines":    countLines,
	}
}

// exitCode runs a program and demands its exit code: exitcode 125 micropod run …
// What it printed is there for the stdout and stderr commands as after exec.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// setFromOutput puts a program's last output line into a variable:
// setenv ID stdout
func setFromOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FILE")
	}
	text := strings.TrimSpace(ts.ReadFile(args[1]))
	lines := strings.Split(text, "\n")
	ts.Setenv(args[0], lines[len(lines)-1])
}

// countLines demands a number of lines: lines 3 stdout
func countLines(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: lines COUNT FILE")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := strings.Count(ts.ReadFile(args[1]), "\n"); (got == want) == neg {
		ts.Fatalf("%d lines in %s", got, args[1])
	}
}

// eventually runs check until it is true. The limit is for a broken program
// only: nothing is measured here.
func eventually(limit time.Duration, check func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if check() {
			return true
		}
	}
	return check()
}

// commandLine is the text of /proc/PID/cmdline with blanks for NULs.
func commandLine(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil {
		return ""
	}
	return string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
}
