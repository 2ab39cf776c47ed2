package seccomp

import (
	_ "embed"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultProgram is what the default profile compiles to for a container with
// docker's default capabilities (TestDefaultProgram writes it). To compile it was
// a third of what a run did before its VM, twice over.
//
//go:embed default.bpf
var defaultProgram string

// DefaultFilter is docker's default profile for a container.
func DefaultFilter(t Target) (Filter, error) {
	if t.common() {
		return Filter{unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, []byte(defaultProgram)}, nil
	}
	return Default().Filter(t)
}

// common reports whether every condition of the default profile is decided as
// for docker's default capabilities and a kernel of our days.
func (t Target) common() bool {
	const named = "DAC_READ_SEARCH SYS_ADMIN SYS_BOOT SYS_MODULE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_TIME " +
		"SYS_TTY_CONFIG SYS_NICE SYSLOG BPF PERFMON"
	for name := range strings.FieldsSeq(named) {
		if t.has("CAP_" + name) {
			return false
		}
	}
	return t.has("CAP_SYS_CHROOT") && t.atLeast(4, 8)
}
