package fidelity

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const page = "../../docs/fidelity.md"

const intro = `# Fidelity

What a container sees in MicroPod is compared with what it sees in docker's own
engine: the same image, the same command line, the same machine, and a probe in
the image that prints user, groups, capabilities, seccomp, environment, working
directory, limits, mounts, devices, terminal, names, system calls and files. Each
row below is a case. Every fact that the probe tells has to be the same on both
sides, but for the differences in the second table, each with its reason. The
test fails on any other difference, and on a reason that no case needs any more.

The reference is the engine of the distribution's package docker.io. Where a
newer one differs from it, MicroPod follows the newer. Only root can start it;
without root the comparison is skipped. It runs with ` + "`make test`" + `. This page is
written from its tables:

` + "```sh self\nmake docs\n```\n"

// TestPage keeps docs/fidelity.md what the tables say; with MICROPOD_UPDATE it
// writes it. That the tables are true, TestFidelity checks.
func TestPage(t *testing.T) {
	text := markdown()
	if os.Getenv("MICROPOD_UPDATE") != "" {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != text {
		t.Error("docs/fidelity.md is not what the tables say: make docs")
	}
}

func markdown() string {
	var b strings.Builder
	b.WriteString(intro)
	fmt.Fprintf(&b, "\n## Cases\n\n%d cases in %d containers. A number is a difference of the second table that is\nallowed in this case; those that are allowed in all cases are not repeated.\n\n", len(rows()), containers())
	b.WriteString("| Case | Image | Same |\n|---|---|---|\n")
	for _, r := range rows() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(r.name), cmp.Or(r.image, "none"), verdict(r.name))
	}
	b.WriteString("\n## Differences that are allowed\n\n| Number | In | What | Kind | Reason |\n|---|---|---|---|---|\n")
	for n, a := range allowances() {
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s |\n", n+1, cell(cmp.Or(a.in, "all")), cell("`"+readable(a.fact)+"`"), a.kind, cell(a.why))
	}
	b.WriteString("\n## Kinds\n\n| Kind | Meaning |\n|---|---|\n")
	for _, k := range kinds() {
		fmt.Fprintf(&b, "| %s | %s |\n", k.kind, k.meaning)
	}
	return b.String()
}

// verdict is yes, or the numbers of what is allowed.
func verdict(name string) string {
	var numbers []string
	for n, a := range allowances() {
		if a.in != "" && matches(a.in, name) {
			numbers = append(numbers, strconv.Itoa(n+1))
		}
	}
	if numbers == nil {
		return "yes"
	}
	return "but for " + strings.Join(numbers, ", ")
}

// readable is a pattern of facts without what only the program needs.
func readable(pattern string) string {
	return strings.NewReplacer(anyStep, "", `\\`, `\`, `\.`, ".").Replace(pattern)
}

// cell is text for a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func containers() int {
	n := 0
	for _, sc := range scenarios() {
		if sc.image != "" {
			n++
		}
	}
	return n
}

// TestAllowances checks the list itself: kinds and reasons, and no row that is
// not there.
func TestAllowances(t *testing.T) {
	for n, a := range allowances() {
		if a.why == "" || !slices.ContainsFunc(kinds(), func(k kindMeaning) bool { return k.kind == a.kind }) {
			t.Errorf("allowance %d: kind %q, reason %q", n+1, a.kind, a.why)
		}
		if a.in != "" && !slices.ContainsFunc(rows(), func(r row) bool { return matches(a.in, r.name) }) {
			t.Errorf("allowance %d is about %q: there is no such case", n+1, a.in)
		}
	}
}
