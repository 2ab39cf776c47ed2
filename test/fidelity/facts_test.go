package fidelity

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// facts are what one side found out, by name.
type facts map[string]string

// absent is the value of a fact that a side does not have.
const absent = "(absent)"

// id is what an engine names a container by, in host names too.
var id = regexp.MustCompile(`\b[0-9a-f]{12}([0-9a-f]{52})?\b`)

// take adds what a command said: the probe's facts, or else the plain text.
func (f facts) take(prefix string, r result, stderr bool) {
	r.stdout, r.stderr = id.ReplaceAllString(r.stdout, "ID"), id.ReplaceAllString(r.stderr, "ID")
	f[prefix+"exit"] = fmt.Sprint(r.code)
	var said map[string]string
	if json.Unmarshal([]byte(r.stdout), &said) == nil {
		for name, value := range said {
			f[prefix+name] = value
		}
	} else {
		f[prefix+"stdout"] = r.stdout
	}
	if stderr {
		f[prefix+"stderr"] = r.stderr
	}
}

// difference is a fact that is not the same on both sides.
type difference struct{ fact, ref, our string }

func (d difference) String() string {
	return fmt.Sprintf("%s\n    docker   %s\n    micropod %s", d.fact, d.ref, d.our)
}

// compare lists the facts that differ, in order.
func compare(ref, our facts) []difference {
	names := map[string]bool{}
	for _, f := range []facts{ref, our} {
		for name := range f {
			names[name] = true
		}
	}
	value := func(f facts, name string) string {
		if v, ok := f[name]; ok {
			return v
		}
		return absent
	}
	var out []difference
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if r, o := value(ref, name), value(our, name); r != o {
			out = append(out, difference{name, r, o})
		}
	}
	return out
}

// matches reports whether all of s matches a pattern; "" matches anything.
func matches(pattern, s string) bool {
	return pattern == "" || regexp.MustCompile(`^(?s:`+pattern+`)$`).MatchString(s)
}

// TestCompare: what differs is found, on either side.
func TestCompare(t *testing.T) {
	ref := facts{"same": "1", "other": "a", "ours not": "x"}
	our := facts{"same": "1", "other": "b", "theirs not": "y"}
	got := compare(ref, our)
	want := []difference{{"other", "a", "b"}, {"ours not", "x", absent}, {"theirs not", absent, "y"}}
	if !slices.Equal(got, want) {
		t.Errorf("compare: %v, want %v", got, want)
	}
}

// TestTake: facts of the probe are taken one by one, other text as a whole.
func TestTake(t *testing.T) {
	f := facts{}
	f.take("a ", result{code: 3, stdout: `{"uid": "0", "cwd": "/"}`}, false)
	f.take("b ", result{stdout: "text\n", stderr: "oh"}, true)
	want := facts{"a exit": "3", "a uid": "0", "a cwd": "/", "b exit": "0", "b stdout": "text\n", "b stderr": "oh"}
	if !maps.Equal(f, want) {
		t.Errorf("take: %v, want %v", f, want)
	}
	if !matches("a.*", "a\nb") || matches("a", "ab") {
		t.Error("matches: a pattern is about all of the text")
	}
	if s := (difference{"x", "1", "2"}).String(); !strings.Contains(s, "docker   1") {
		t.Error(s)
	}
}
