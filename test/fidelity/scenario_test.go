package fidelity

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

// scenario is one container: a run to its end whose output counts, or one in the
// background with steps. Without an image it is steps alone.
type scenario struct {
	name    string
	image   string // of images
	command []string
	stdin   string
	stderr  bool // it counts too
	cases   []testCase
	steps   []step
}

// testCase is a row of the page. Several share a container where they do not
// meet: each is about some of the facts.
type testCase struct {
	name  string
	flags []string
	// facts are what the case is about: patterns of names. The ones after = are
	// patterns of docker's value, which says that the case is what it seems.
	facts []string
}

// step is a command; NAME in it is the container.
type step struct {
	name  string
	args  []string
	stdin string
	until string // wait until the container's log has this
	row   string // "" for a row of its own
}

func (c testCase) covers(fact string) bool {
	return slices.ContainsFunc(c.facts, func(f string) bool {
		name, _, _ := strings.Cut(f, "=")
		return matches(name, fact)
	})
}

// missing lists what the case is about and docker does not tell.
func (c testCase) missing(ref facts) []string {
	var out []string
	for _, f := range c.facts {
		name, value, _ := strings.Cut(f, "=")
		found := false
		for fact, v := range ref {
			found = found || matches(name, fact) && matches(value, v)
		}
		if !found {
			out = append(out, f)
		}
	}
	return out
}

// row is the name of the row that a fact belongs to; what no case is about
// belongs to the first.
func (sc scenario) row(fact string) string {
	// The longest name: one may begin as another one does.
	var best step
	for _, st := range sc.steps {
		if strings.HasPrefix(fact, st.name+": ") && len(st.name) > len(best.name) {
			best = st
		}
	}
	if best.name != "" {
		return best.rowName()
	}
	for _, c := range sc.cases {
		if c.covers(fact) {
			return c.name
		}
	}
	return sc.cases[0].name
}

func (st step) rowName() string {
	if st.row != "" {
		return st.row
	}
	return st.name
}

// row is a line of the page.
type row struct{ image, name string }

// rows lists all cases.
func rows() []row {
	var out []row
	for _, sc := range scenarios() {
		for _, c := range sc.cases {
			if len(sc.steps) == 0 {
				out = append(out, row{sc.image, c.name})
			}
		}
		for _, st := range sc.steps {
			r := row{sc.image, st.rowName()}
			if !slices.ContainsFunc(out, func(o row) bool { return o.name == r.name }) {
				out = append(out, r)
			}
		}
	}
	return out
}

func flagValue(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// TestScenarios checks the table: names that can be told apart, images that
// there are, and as many cases as the page promises.
func TestScenarios(t *testing.T) {
	const least = 80
	if n := len(rows()); n < least {
		t.Errorf("%d cases, at least %d", n, least)
	}
	seen := map[string]bool{}
	for _, sc := range scenarios() {
		if seen["scenario "+sc.name] {
			t.Errorf("two scenarios are called %q", sc.name)
		}
		seen["scenario "+sc.name] = true
		if sc.image != "" && !slices.ContainsFunc(images(), func(i image) bool { return i.name == sc.image }) {
			t.Errorf("%s: there is no image %q", sc.name, sc.image)
		}
		if len(sc.cases) == 0 && len(sc.steps) == 0 {
			t.Errorf("%s has no case", sc.name)
		}
		for _, c := range sc.cases {
			if seen[c.name] {
				t.Errorf("two cases are called %q", c.name)
			}
			seen[c.name] = true
		}
		for _, st := range sc.steps {
			if seen[st.name] {
				t.Errorf("two steps are called %q", st.name)
			}
			seen[st.name] = true
		}
	}
}
