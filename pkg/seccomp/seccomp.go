// Package seccomp turns docker's seccomp profiles into the BPF programs that a
// guest kernel runs. It works on the host, so that the agent, which sits in the
// memory of every VM, only has to install a finished program.
//
// A profile means what it means to docker and runc with libseccomp: conditions
// on capabilities, architecture and kernel; rules for x86-64 and, as the profile
// says, for the 32-bit calls of x86 and x32; what no rule names gets the default
// action, or ENOSYS if it is newer than all that the profile names, as runc has
// it. An architecture that the profile does not list ends the process.
//
// A profile is the user's text: its size is bounded here, the program's by the
// kernel's own limit.
package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MaxProfile bounds the text of a profile, in bytes. Docker's own has 15 KB.
const MaxProfile = 1 << 20

// Profile is a profile in docker's form, not yet bound to a container.
type Profile struct{ p *seccomp.Seccomp }

// Default is docker's default profile.
func Default() Profile { return Profile{seccomp.DefaultProfile()} }

// Parse reads a profile in docker's JSON form, which is also the OCI runtime
// spec's.
func Parse(text []byte) (Profile, error) {
	if len(text) > MaxProfile {
		return Profile{}, fmt.Errorf("a profile of %d bytes: at most %d are allowed", len(text), MaxProfile)
	}
	var p seccomp.Seccomp
	if err := json.Unmarshal(text, &p); err != nil {
		return Profile{}, fmt.Errorf("decode: %w", err)
	}
	return Profile{&p}, nil
}

// Target is what the conditions of a profile are about.
type Target struct {
	Capabilities []string // the bounding set, as CAP_CHOWN
	Kernel       string   // uname -r of the guest; "" counts as newer than all
}

// Filter is a program for seccomp(2).
type Filter struct {
	Flags uint32 // SECCOMP_FILTER_FLAG_…
	// Program holds struct sock_filter, 8 bytes each, in x86's byte order. Empty
	// means that the profile asks for no filter.
	Program []byte
}

// Filter compiles the profile for a container.
func (p Profile) Filter(t Target) (Filter, error) {
	if p.p.DefaultAction == "" && len(p.p.Syscalls) == 0 {
		return Filter{}, nil // docker: such a profile switches seccomp off
	}
	policy, err := p.resolve(t)
	if err != nil {
		return Filter{}, err
	}
	flags, err := filterFlags(p.p.Flags)
	if err != nil {
		return Filter{}, err
	}
	program, err := policy.program()
	return Filter{flags, program}, err
}

// policy is a profile whose conditions have been decided.
type policy struct {
	abis     []abi
	fallback uint32 // what the kernel does with calls that no rule names
	nosys    bool   // calls newer than the rules get ENOSYS
	rules    []rule
}

// rule is one action for some calls, under conditions that must all hold.
type rule struct {
	names  []string
	action uint32
	args   []specs.LinuxSeccompArg
}

func (p Profile) resolve(t Target) (*policy, error) {
	if p.p.ListenerPath != "" || p.p.ListenerMetadata != "" {
		return nil, errors.New("a profile with a listener is not supported")
	}
	abis, err := p.abis()
	if err != nil {
		return nil, err
	}
	fallback, err := action(p.p.DefaultAction, p.p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	out := &policy{abis: abis, fallback: fallback, nosys: !permissive(fallback) && fallback != actErrno|uint32(unix.ENOSYS)}
	for _, call := range p.p.Syscalls {
		if call == nil {
			return nil, errors.New("an empty rule")
		}
		applies, err := t.meets(call)
		if err != nil {
			return nil, err
		}
		if !applies {
			continue
		}
		rules, err := rulesOf(call)
		if err != nil {
			return nil, err
		}
		out.rules = append(out.rules, rules...)
	}
	return out, nil
}

// abis are the ways to enter the kernel that the profile has rules for. The
// native one always counts.
func (p Profile) abis() ([]abi, error) {
	if len(p.p.Architectures) > 0 && len(p.p.ArchMap) > 0 {
		return nil, errors.New("use either 'architectures' or 'archMap', not both")
	}
	arches := append([]specs.Arch{specs.ArchX86_64}, p.p.Architectures...)
	for _, a := range p.p.ArchMap {
		if a.Arch == specs.ArchX86_64 {
			arches = append(arches, a.SubArches...)
		}
	}
	var out []abi
	for _, a := range allABIs() {
		if slices.Contains(arches, a.arch) {
			out = append(out, a)
		}
	}
	return out, nil
}

// meets reports whether a rule is one for this container.
func (t Target) meets(call *seccomp.Syscall) (bool, error) {
	if ex := call.Excludes; ex != nil {
		newer := ex.MinKernel != nil && t.atLeast(ex.MinKernel.Kernel, ex.MinKernel.Major)
		if slices.Contains(ex.Arches, "amd64") || slices.ContainsFunc(ex.Caps, t.has) || newer {
			return false, nil
		}
	}
	if in := call.Includes; in != nil {
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, "amd64") {
			return false, nil
		}
		lacks := func(c string) bool { return !t.has(c) }
		return !slices.ContainsFunc(in.Caps, lacks) && (in.MinKernel == nil || t.atLeast(in.MinKernel.Kernel, in.MinKernel.Major)), nil
	}
	return true, nil
}

func (t Target) has(capability string) bool { return slices.Contains(t.Capabilities, capability) }

// atLeast compares the first two numbers of the release, as docker does.
func (t Target) atLeast(version, patch uint64) bool {
	if t.Kernel == "" {
		return true
	}
	major, rest, _ := strings.Cut(t.Kernel, ".")
	minor := rest
	if i := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' }); i >= 0 {
		minor = rest[:i]
	}
	a, _ := strconv.ParseUint(major, 10, 32) // a release that is no number is older than all
	b, _ := strconv.ParseUint(minor, 10, 32)
	return a > version || a == version && b >= patch
}

// rulesOf checks a rule. Two conditions on the same argument are alternatives,
// which is how runc reads them.
func rulesOf(call *seccomp.Syscall) ([]rule, error) {
	names := call.Names
	//lint:ignore SA1019 profiles of the old form must go on to work
	if old := call.Name; old != "" {
		if len(names) > 0 {
			return nil, errors.New("use either 'name' or 'names' in a rule, not both")
		}
		names = []string{old}
	}
	act, err := action(call.Action, call.ErrnoRet)
	if err != nil {
		return nil, err
	}
	seen := map[uint]bool{}
	alternatives := false
	for _, a := range call.Args {
		if a.Index > 5 {
			return nil, fmt.Errorf("argument %d: a system call has 6", a.Index)
		}
		if !knownOp(a.Op) {
			return nil, fmt.Errorf("unknown operator %q", a.Op)
		}
		alternatives = alternatives || seen[a.Index]
		seen[a.Index] = true
	}
	if !alternatives {
		return []rule{{names, act, call.Args}}, nil
	}
	var out []rule
	for _, a := range call.Args {
		out = append(out, rule{names, act, []specs.LinuxSeccompArg{a}})
	}
	return out, nil
}

// What a filter may return, seccomp(2). An errno or a tracer's message is in
// the lower half.
const (
	actKillProcess = 0x80000000
	actKillThread  = 0x00000000
	actTrap        = 0x00030000
	actErrno       = 0x00050000
	actTrace       = 0x7ff00000
	actLog         = 0x7ffc0000
	actAllow       = 0x7fff0000

	maxErrno = 4095 // the kernel's; also keeps the value out of the action's half
)

func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		if *errno > maxErrno {
			return 0, fmt.Errorf("errno %d: at most %d", *errno, maxErrno)
		}
		data = uint32(*errno)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return actKillThread, nil
	case specs.ActKillProcess:
		return actKillProcess, nil
	case specs.ActTrap:
		return actTrap, nil
	case specs.ActErrno:
		return actErrno | data, nil
	case specs.ActTrace:
		return actTrace | data, nil
	case specs.ActLog:
		return actLog, nil
	case specs.ActAllow:
		return actAllow, nil
	case specs.ActNotify:
		return 0, fmt.Errorf("action %s is not supported", a)
	}
	return 0, fmt.Errorf("unknown action %q", a)
}

// permissive actions let a call through, perhaps with somebody looking on.
func permissive(action uint32) bool {
	return action == actAllow || action == actLog || action&0xffff0000 == actTrace
}

// filterFlags are the flags of seccomp(2). Without any in the profile it is
// SPEC_ALLOW, as runc has it: else older kernels slow every filtered process.
func filterFlags(names []specs.LinuxSeccompFlag) (uint32, error) {
	if names == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	flags := uint32(0)
	for _, n := range names {
		switch n {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC": // of no effect: the command has one thread
		default:
			return 0, fmt.Errorf("flag %q is not supported", n)
		}
	}
	return flags, nil
}
