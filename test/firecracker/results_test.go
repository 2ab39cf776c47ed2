package firecracker

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
)

// results reads what a test program with -test.v prints. It shows which test
// begins and how each ended as they come, and keeps the rest for a failure.
type results struct {
	show    io.Writer
	all     bytes.Buffer
	line    []byte
	skipped []string
	passed  int
	last    []string // lines before this one
	failed  []string // what is said of failures, short
}

// wordsBefore is how many lines before a script's failure tell why.
const wordsBefore = 12

// outcome matches a result: its word and its test.
var outcome = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)

func (r *results) Write(p []byte) (int, error) {
	r.all.Write(p)
	r.line = append(r.line, p...)
	for {
		line, rest, whole := bytes.Cut(r.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		r.read(string(line))
		r.line = append([]byte(nil), rest...)
	}
}

func (r *results) read(line string) {
	switch text := strings.TrimSpace(line); {
	case strings.HasPrefix(text, "FAIL: "): // of a script
		r.failed = append(append(r.failed, r.last...), line)
		r.last = nil
	case strings.HasPrefix(text, "--- FAIL: "):
		r.failed = append(r.failed, line)
	}
	r.last = append(r.last, line)
	r.last = r.last[max(0, len(r.last)-wordsBefore):]
	if strings.HasPrefix(line, "=== RUN ") || strings.HasPrefix(line, "=== CONT ") {
		fmt.Fprintln(r.show, line)
	}
	m := outcome.FindStringSubmatch(line)
	if m == nil {
		return
	}
	fmt.Fprintln(r.show, strings.TrimSpace(line))
	switch m[1] {
	case "PASS":
		r.passed++
	case "SKIP":
		r.skipped = append(r.skipped, m[2])
	}
}

// judge says what is wrong about a run that ended with code, "" if nothing is.
func (r *results) judge(code int) string {
	switch {
	case code != 0:
		return fmt.Sprintf("it ended with exit code %d", code)
	case len(r.skipped) > 0:
		return "it skipped " + strings.Join(r.skipped, ", ")
	case r.passed == 0:
		return "it ran no test"
	}
	return ""
}

// TestFailures: the end of a script's words and every failed test are kept.
func TestFailures(t *testing.T) {
	r := &results{show: io.Discard}
	for i := range 2 * wordsBefore {
		fmt.Fprintf(r, "line %d\n", i)
	}
	fmt.Fprint(r, "        FAIL: testdata/vm/run.txtar:3: unexpected\n--- PASS: TestA (1.0s)\n    --- FAIL: TestVM/run (1.0s)\nFAIL\n")
	got := strings.Join(r.failed, "\n")
	if strings.Contains(got, "line 11\n") || !strings.HasPrefix(got, "line 12\n") {
		t.Errorf("not the %d lines before: %s", wordsBefore, got)
	}
	if !strings.HasSuffix(got, "line 23\n        FAIL: testdata/vm/run.txtar:3: unexpected\n    --- FAIL: TestVM/run (1.0s)") {
		t.Errorf("not what failed: %s", got)
	}
}

// TestResults: a run counts only when it tested something and skipped nothing.
func TestResults(t *testing.T) {
	const pass = "=== RUN   TestVM\n    --- PASS: TestVM/run (1.0s)\n--- PASS: TestVM (2.0s)\nPASS\n"
	for _, tt := range []struct {
		output, want string
		code         int
	}{
		{pass, "", 0},
		{pass, "it ended with exit code 2", 2},
		{"testing: warning: no tests to run\nPASS\n", "it ran no test", 0},
		{pass + "    --- SKIP: TestVM/tty (0.0s)\n", "it skipped TestVM/tty", 0},
		{"--- SKIP: TestContract (0.0s)\n    x_test.go:1: no KVM\nPASS\n", "it skipped TestContract", 0},
		{"panic: --- PASS: no result\n", "it ran no test", 0},
	} {
		r := &results{show: io.Discard}
		for _, b := range []byte(tt.output) {
			r.Write([]byte{b})
		}
		if got := r.judge(tt.code); got != tt.want {
			t.Errorf("%q, code %d: %q, want %q", tt.output, tt.code, got, tt.want)
		}
	}
}
