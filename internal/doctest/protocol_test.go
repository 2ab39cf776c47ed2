package doctest

import (
	"bytes"
	"go/ast"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/agent/api"
)

const protocolPage = "docs/guest-protocol.md"

var fieldHeader = []string{"Field", "Type", "When empty", "Meaning"}

// TestProtocolMessages compares the tables of fields with the structs.
func TestProtocolMessages(t *testing.T) {
	s := parsePackage(t, "pkg/agent/api")
	documented := map[string]bool{}
	for _, tab := range tablesWith(t, protocolPage, fieldHeader...) {
		documented[tab.heading] = true
		checkFields(t, tab, s, tab.heading)
	}
	for name, e := range s.types {
		if _, ok := e.(*ast.StructType); ok && !documented[name] {
			t.Errorf("%s does not describe the message %s", protocolPage, name)
		}
	}
}

// TestProtocolNumbers compares every constant, in both directions.
func TestProtocolNumbers(t *testing.T) {
	s := parsePackage(t, "pkg/agent/api")
	said := map[string]bool{}
	say := func(name, value string) {
		said[name] = true
		if got := s.value(t, name); got != value {
			t.Errorf("%s is %s, the page says %s", name, got, value)
		}
	}
	for _, tab := range tablesWith(t, protocolPage, "Name", "Value", "Meaning") {
		for _, row := range tab.rows {
			say(code(t, row[0]), row[1])
		}
	}
	for _, tab := range tablesWith(t, protocolPage, "Name", "Where", "Value", "Meaning") {
		for _, row := range tab.rows {
			name, where := code(t, row[0]), code(t, row[1])
			if where == "pkg/agent/api" {
				say(name, row[2])
			} else if got := parsePackage(t, where).value(t, name); got != row[2] {
				t.Errorf("%s of %s is %s, the page says %s", name, where, got, row[2])
			}
		}
	}
	for _, row := range tablesWith(t, protocolPage, "Purpose", "Name", "Meaning")[0].rows {
		say(code(t, row[1]), code(t, row[0]))
	}
	for _, row := range tablesWith(t, protocolPage, "Method", "Name", "Parameters", "Result", "Meaning")[0].rows {
		say(code(t, row[1]), code(t, row[0]))
		for _, message := range row[2:4] {
			if message != "none" && s.types[message] == nil {
				t.Errorf("method %s: there is no message %s", row[0], message)
			}
		}
	}
	for _, row := range tablesWith(t, protocolPage, "Code", "Name", "Exit code of `micropod`", "Meaning")[0].rows {
		say(code(t, row[1]), code(t, row[0]))
	}
	for _, row := range tablesWith(t, protocolPage, "Kind", "Number", "From", "Payload", "Limit")[0].rows {
		say("Kind"+code(t, row[0]), row[1])
	}
	for _, name := range slices.Sorted(maps.Keys(s.consts)) {
		if !said[name] && s.typeOf[name] != "Stream" { // other names of three kinds
			t.Errorf("%s does not name the constant %s", protocolPage, name)
		}
	}
}

// TestOwnBoundsOfBothSides finds a new bound of host or guest that the page does
// not name: those of time, and those that begin with max or min.
func TestOwnBoundsOfBothSides(t *testing.T) {
	said := map[string]bool{}
	for _, row := range tablesWith(t, protocolPage, "Name", "Where", "Value", "Meaning")[0].rows {
		said[code(t, row[1])+" "+code(t, row[0])] = true
	}
	// Bounds of the guest's own work on the image, which no message carries.
	inner := []string{"maxAccounts", "maxLine", "maxUserID", "maxLinks", "maxGroups", "clockSlack"}
	for _, dir := range []string{"pkg/agent", "pkg/guest"} {
		s := parsePackage(t, dir)
		for name := range s.consts {
			bound := strings.HasPrefix(name, "max") || strings.HasPrefix(name, "min") ||
				strings.HasSuffix(name, "Timeout") || strings.HasSuffix(name, "Grace")
			if bound && !said[dir+" "+name] && !slices.Contains(inner, name) {
				t.Errorf("%s does not name the bound %s of %s", protocolPage, name, dir)
			}
		}
	}
}

// TestProtocolFrames asks the code itself about each row of the table of frames.
func TestProtocolFrames(t *testing.T) {
	s := parsePackage(t, "pkg/agent/api")
	rows := tablesWith(t, protocolPage, "Kind", "Number", "From", "Payload", "Limit")[0].rows
	known := map[int]bool{}
	for _, row := range rows {
		n, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		known[n] = true
		limit, err := strconv.Atoi(s.value(t, code(t, row[4])))
		if err != nil {
			t.Fatal(err)
		}
		for size, ok := range map[int]bool{0: true, limit: true, limit + 1: false} {
			if err := api.WriteFrame(&bytes.Buffer{}, api.Kind(n), make([]byte, size)); (err == nil) != ok {
				t.Errorf("frame %s of %d bytes: %v", row[0], size, err)
			}
		}
		message, isJSON := strings.CutPrefix(row[3], "JSON, ")
		if isJSON && s.types[message] == nil {
			t.Errorf("frame %s: there is no message %s", row[0], message)
		}
	}
	for n := range 256 {
		if err := api.WriteFrame(&bytes.Buffer{}, api.Kind(n), nil); (err == nil) != known[n] {
			t.Errorf("kind %d: %v, the page knows it: %v", n, err, known[n])
		}
	}
	var b bytes.Buffer
	if err := api.WriteFrame(&b, api.KindStdout, []byte("ab")); err != nil {
		t.Fatal(err)
	}
	if want := "\x11\x00\x00\x00\x02ab"; b.String() != want {
		t.Errorf("a frame is %q on the wire, the page says %q", b.String(), want)
	}
}

// TestExitCodesOfErrors finds the codes' exit codes in the table for users.
func TestExitCodesOfErrors(t *testing.T) {
	said := map[string]bool{}
	for _, row := range tablesWith(t, usagePage, "Exit code", "Meaning")[0].rows {
		said[row[0]] = true
	}
	for _, row := range tablesWith(t, protocolPage, "Code", "Name", "Exit code of `micropod`", "Meaning")[0].rows {
		if !said[row[2]] {
			t.Errorf("the table of exit codes in %s has no %s", usagePage, row[2])
		}
	}
}
