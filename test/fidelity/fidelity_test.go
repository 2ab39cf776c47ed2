// Package fidelity holds no code, only the comparison of MicroPod with docker's
// own engine: the same images and command lines, on the same machine, and a
// probe in the image that says what the container's process sees. What differs
// is a failure, but for the short list in allowed_test.go.
//
// The engine is started for the test, which needs root. docs/fidelity.md is
// written from the same tables, by make docs.
package fidelity

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// scenarioTime bounds one side of one scenario; VMs are emulated, slowly.
const scenarioTime = 10 * time.Minute

// sides are who runs the scenarios.
type sides struct {
	ref *reference
	our *engine

	allowed []allowance

	mu   sync.Mutex
	used []map[string]bool // of each allowance: the rows that needed it
}

func TestFidelity(t *testing.T) {
	s := newSides(t)
	t.Run("scenarios", func(t *testing.T) {
		for _, sc := range scenarios() {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				s.run(t, sc)
			})
		}
	})
	if !t.Failed() && allSelected(t) {
		s.checkAllowances(t)
	}
}

func newSides(t *testing.T) *sides {
	t.Helper()
	kernel, images := os.Getenv("MICROPOD_TEST_KERNEL"), os.Getenv("MICROPOD_TEST_IMAGES")
	required := os.Getenv("MICROPOD_TEST_REQUIRE") == "1"
	switch {
	case os.Getuid() != 0:
		t.Skip("docker's engine needs root") // also where everything is required: nobody else can start it
	case kernel == "" || images == "":
		if required {
			t.Fatal("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES must name a guest kernel and an OCI layout")
		}
		t.Skip("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES do not name a guest kernel and an OCI layout (make test does)")
	case testing.Short():
		t.Skip("it boots many VMs")
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "images.tar")
	writeImages(t, archive, images, build(t, "probe", "./test/fidelity/probe"))
	writeFiles(t, dir)
	s := &sides{allowed: allowances(), used: make([]map[string]bool, len(allowances()))}
	s.ref, s.our = startReference(t), startMicroPod(t, kernel)
	for _, e := range []*engine{&s.ref.engine, s.our} {
		e.dir = dir
		e.must(t, "load", "-q", "-i", archive)
	}
	return s
}

// allSelected reports whether -run left no scenario out.
func allSelected(t *testing.T) bool {
	return !strings.Contains(flagValue("test.run"), "/") && !t.Skipped()
}

// run runs a scenario on both sides and judges what differs.
func (s *sides) run(t *testing.T, sc scenario) {
	var ref, our facts
	var refErr, ourErr error
	refSays, ourSays := &strings.Builder{}, &strings.Builder{}
	var both sync.WaitGroup
	both.Go(func() { ref, refErr = sc.facts(t.Context(), &s.ref.engine, refSays) })
	both.Go(func() { our, ourErr = sc.facts(t.Context(), s.our, ourSays) })
	both.Wait()
	if refErr != nil || ourErr != nil {
		t.Fatal(refErr, ourErr)
	}
	for _, c := range sc.cases {
		for _, missing := range c.missing(ref) {
			t.Errorf("%s: with docker there is no fact %s", c.name, missing)
		}
	}
	for _, d := range compare(ref, our) {
		if row := sc.row(d.fact); !s.allow(row, d) {
			t.Errorf("%s: %s", row, d)
		}
	}
	if t.Failed() {
		t.Logf("docker said:\n%smicropod said:\n%s", refSays, ourSays)
	}
}

// facts runs the scenario with one engine; says gets what it writes on stderr.
func (sc scenario) facts(ctx context.Context, e *engine, says io.Writer) (facts, error) {
	ctx, cancel := context.WithTimeout(ctx, scenarioTime)
	defer cancel()
	f, name := facts{}, containerName(sc.name)
	defer func() {
		// Another context: this one may have ended, and the container has not.
		_, _ = e.do(context.Background(), "", "rm", "-f", name)
	}()
	if sc.image != "" {
		line := sc.line(name)
		r, err := e.do(ctx, sc.stdin, line...)
		if err == nil && len(sc.steps) > 0 && r.code != 0 {
			err = fmt.Errorf("%s %v: exit code %d\n%s", e.name, line, r.code, r.stderr)
		}
		if err != nil {
			return nil, err
		}
		if len(sc.steps) == 0 {
			f.take("", r, sc.stderr)
			io.WriteString(says, r.stderr)
		}
	}
	for _, st := range sc.steps {
		if err := st.take(ctx, e, name, f, says); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// containerName makes a name of a scenario's.
func containerName(scenario string) string {
	return "fid-" + regexp.MustCompile("[^a-zA-Z0-9]+").ReplaceAllString(scenario, "-")
}

// line is the command line of the scenario's container.
func (sc scenario) line(name string) []string {
	line := []string{"run", "--network", "none", "--name", name}
	if len(sc.steps) > 0 {
		line = append(line, "-d")
	}
	for _, c := range sc.cases {
		line = append(line, c.flags...)
	}
	return append(append(line, imageName(sc.image)), sc.command...)
}

// take runs one step; its facts have its name in front.
func (st step) take(ctx context.Context, e *engine, container string, f facts, says io.Writer) error {
	var args []string
	for _, a := range st.args {
		if a == "NAME" {
			a = container
		}
		args = append(args, a)
	}
	r, err := e.do(ctx, st.stdin, args...)
	if err != nil {
		return err
	}
	if strings.TrimSpace(r.stdout) == container {
		r.stdout = "NAME"
	}
	f.take(st.name+": ", r, false)
	fmt.Fprintf(says, "%s: %s\n", st.name, strings.TrimSpace(r.stderr))
	if st.until != "" {
		return e.waitForLog(ctx, container, st.until)
	}
	return nil
}

// allow reports whether a difference is allowed, and notes by what.
func (s *sides) allow(row string, d difference) bool {
	for n, a := range s.allowed {
		if s.holds(a) && a.allows(row, d) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.used[n] == nil {
				s.used[n] = map[string]bool{}
			}
			s.used[n][row] = true
			return true
		}
	}
	return false
}

// holds reports whether an allowance is about this machine.
func (s *sides) holds(a allowance) bool {
	return (a.kind != older || s.ref.major < newest) && (a.kind != cgroups || s.ref.cgroupV1)
}

// checkAllowances keeps the list short: what no case needs any more must go,
// and what is allowed in some rows must be needed in each of them.
func (s *sides) checkAllowances(t *testing.T) {
	for n, a := range s.allowed {
		if !s.holds(a) || a.maybe {
			continue
		}
		if len(s.used[n]) == 0 {
			t.Errorf("allowance %d (%s) is of no use any more", n+1, a.fact)
			continue
		}
		for _, row := range rows() {
			if a.in != "" && matches(a.in, row.name) && !s.used[n][row.name] {
				t.Errorf("allowance %d (%s) is of no use in %q", n+1, a.fact, row.name)
			}
		}
	}
}
