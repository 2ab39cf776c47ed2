package seccomp

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	moby "github.com/moby/profiles/seccomp"
)

// stored compares a file that is written from code with what the code says; with
// MICROPOD_UPDATE it writes the file.
func stored(t *testing.T, name string, want []byte) {
	t.Helper()
	if os.Getenv("MICROPOD_UPDATE") != "" {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is out of date (run MICROPOD_UPDATE=1 go test ./pkg/seccomp, twice where the calls have changed): %v", name, err)
	}
}

// TestCallNumbers compares the numbers with the library's. Of x32 those that are
// x86-64's only are left out: a call that has one of its own from 512 on must not
// be made by the other.
func TestCallNumbers(t *testing.T) {
	x32 := map[string]int{}
	for n, name := range arch.X32.SyscallNumbers {
		x32[name] = max(x32[name], n)
	}
	tables := []map[string]int{arch.X86_64.SyscallNames, x32, arch.I386.SyscallNames}
	names := map[string]bool{}
	for _, table := range tables {
		for name := range table {
			names[name] = true
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b.WriteString(name)
		for _, table := range tables {
			number := "-"
			if n, ok := table[name]; ok {
				number = strconv.Itoa(n)
			}
			b.WriteString(" " + number)
		}
		b.WriteString("\n")
	}
	stored(t, "calls.txt", []byte(b.String()))
	for i, table := range tables {
		if got := allABIs()[i].number; !maps.Equal(got, table) {
			t.Errorf("%s: %v", allABIs()[i].arch, got)
		}
	}
	for i, info := range []*arch.Info{arch.X86_64, arch.X32, arch.I386} {
		if a := allABIs()[i]; a.audit != uint32(info.ID) || a.bit != uint32(info.SeccompMask) {
			t.Errorf("%s: %#x, %#x", a.arch, a.audit, a.bit)
		}
	}
}

// TestDefaultProgram: the stored program is what the profile compiles to, and it
// is taken only where the profile's conditions are decided so.
func TestDefaultProgram(t *testing.T) {
	want, err := Default().Filter(dockerTarget())
	if err != nil {
		t.Fatal(err)
	}
	stored(t, "default.bpf", want.Program)
	targets := []Target{{}, dockerTarget()}
	for _, kernel := range []string{"", "3.10.0", "4.7.1", "4.8.0", "4.10", "5.0", "6.12.3-x", "x"} {
		targets = append(targets, Target{strings.Fields(dockerCap), kernel})
	}
	for i, c := range strings.Fields(dockerCap) {
		targets = append(targets, Target{slices.Delete(strings.Fields(dockerCap), i, i+1), "6.1"}, Target{[]string{c}, "6.1"})
	}
	for _, call := range Default().p.Syscalls {
		for _, c := range conditions(call) {
			targets = append(targets, Target{append(strings.Fields(dockerCap), c), "6.1"}, Target{[]string{c}, "6.1"})
		}
	}
	for _, target := range targets {
		want, err := Default().Filter(target)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DefaultFilter(target)
		if err != nil || got.Flags != want.Flags || !bytes.Equal(got.Program, want.Program) {
			t.Errorf("%v: %d bytes, want %d, %v", target, len(got.Program), len(want.Program), err)
		}
	}
	if len(targets) < 50 {
		t.Errorf("the profile has conditions: only %d targets", len(targets))
	}
}

// conditions are the capabilities that a rule asks for.
func conditions(call *moby.Syscall) []string {
	var out []string
	for _, f := range []*moby.Filter{call.Includes, call.Excludes} {
		if f != nil {
			out = append(out, f.Caps...)
		}
	}
	return out
}
