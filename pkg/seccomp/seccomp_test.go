package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	auditX86  = 0x40000003
	auditX64  = 0xc000003e
	auditARM  = 0x40000028
	eperm     = actErrno | uint32(unix.EPERM)
	enosys    = actErrno | uint32(unix.ENOSYS)
	newUser   = unix.CLONE_NEWUSER
	dockerCap = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"
)

func dockerTarget() Target {
	return Target{Capabilities: strings.Fields(dockerCap), Kernel: "6.1.0-18-amd64"}
}

// machine runs a program as the kernel does.
type machine struct {
	t  testing.TB
	vm *bpf.VM
}

func load(t testing.TB, program []byte) machine {
	t.Helper()
	if len(program) == 0 || len(program)%8 != 0 || len(program) > 8*maxInstructions {
		t.Fatalf("a program of %d bytes", len(program))
	}
	var raw []bpf.RawInstruction
	for i := 0; i < len(program); i += 8 {
		b := program[i:]
		raw = append(raw, bpf.RawInstruction{Op: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])})
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program holds instructions that nobody knows")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return machine{t, vm}
}

// run gives the action for a call. The interpreter reads a packet, so big-endian
// words; the kernel reads its own.
func (m machine) run(audit, number uint32, args ...uint64) uint32 {
	m.t.Helper()
	data := binary.BigEndian.AppendUint32(nil, number)
	data = binary.BigEndian.AppendUint32(data, audit)
	data = binary.BigEndian.AppendUint64(data, 0x7f00_0000_1000)
	for i := range 6 {
		a := uint64(0)
		if i < len(args) {
			a = args[i]
		}
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	n, err := m.vm.Run(data)
	if err != nil {
		m.t.Fatal(err)
	}
	return uint32(n)
}

func compile(t testing.TB, p Profile, target Target) machine {
	t.Helper()
	f, err := p.Filter(target)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, f.Program)
}

func parse(t testing.TB, text string) Profile {
	t.Helper()
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultProfile(t *testing.T) {
	m := compile(t, Default(), dockerTarget())
	admin := dockerTarget()
	admin.Capabilities = append(admin.Capabilities, "CAP_SYS_ADMIN", "CAP_SYS_TIME")
	a := compile(t, Default(), admin)
	x32 := func(nr uint32) uint32 { return x32Bit | nr }
	for _, c := range []struct {
		name           string
		audit, number  uint32
		args           []uint64
		docker, admins uint32
	}{
		{"read", auditX64, unix.SYS_READ, nil, actAllow, actAllow},
		{"mount", auditX64, unix.SYS_MOUNT, nil, eperm, actAllow},
		{"keyctl", auditX64, unix.SYS_KEYCTL, nil, eperm, eperm},
		{"clock_settime", auditX64, unix.SYS_CLOCK_SETTIME, nil, eperm, actAllow},
		{"fork", auditX64, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, actAllow, actAllow},
		{"new user namespace", auditX64, unix.SYS_CLONE, []uint64{newUser}, eperm, actAllow},
		{"clone3", auditX64, unix.SYS_CLONE3, nil, enosys, actAllow},
		{"ptrace", auditX64, unix.SYS_PTRACE, nil, actAllow, actAllow},
		{"inet", auditX64, unix.SYS_SOCKET, []uint64{unix.AF_INET}, actAllow, actAllow},
		{"alg", auditX64, unix.SYS_SOCKET, []uint64{unix.AF_ALG}, eperm, eperm},
		{"vsock", auditX64, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, eperm, eperm},
		{"personality", auditX64, unix.SYS_PERSONALITY, []uint64{0xffffffff}, actAllow, actAllow},
		{"another personality", auditX64, unix.SYS_PERSONALITY, []uint64{0x40000}, eperm, eperm},
		{"from the future", auditX64, 4000, nil, enosys, enosys},
		{"no call at all", auditX64, math.MaxUint32, nil, enosys, enosys},
		{"i386 read", auditX86, 3, nil, actAllow, actAllow},
		{"i386 mount", auditX86, 21, nil, eperm, actAllow},
		{"i386 new user namespace", auditX86, 120, []uint64{newUser}, eperm, actAllow},
		{"i386 unshare", auditX86, 310, []uint64{newUser}, eperm, actAllow},
		{"i386 clone3", auditX86, 435, nil, enosys, actAllow},
		{"i386 from the future", auditX86, 4000, nil, enosys, enosys},
		{"x32 read", auditX64, x32(0), nil, actAllow, actAllow},
		{"x32 mount", auditX64, x32(165), nil, eperm, actAllow},
		{"x32 execve", auditX64, x32(520), nil, actAllow, actAllow},
		{"x32 with x86-64's execve", auditX64, x32(59), nil, eperm, eperm},
		{"arm", auditARM, 3, nil, actKillProcess, actKillProcess},
	} {
		if got := m.run(c.audit, c.number, c.args...); got != c.docker {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.docker)
		}
		if got := a.run(c.audit, c.number, c.args...); got != c.admins {
			t.Errorf("%s with CAP_SYS_ADMIN: %#x, want %#x", c.name, got, c.admins)
		}
	}
}

// TestAgainstMoby: every call of every ABI gets what docker's own evaluation of
// the profile's conditions says, looked up in the plainest way.
func TestAgainstMoby(t *testing.T) {
	for _, caps := range []string{dockerCap, "", dockerCap + " CAP_SYS_ADMIN CAP_BPF CAP_PERFMON CAP_SYS_PTRACE CAP_SYSLOG"} {
		spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: strings.Fields(caps)}}}
		want, err := moby.GetDefaultProfile(spec)
		if err != nil {
			t.Fatal(err)
		}
		m := compile(t, Default(), Target{Capabilities: strings.Fields(caps)})
		for _, abi := range allABIs() {
			last, names := lastCall(want, abi), map[int]string{}
			for name, n := range abi.number {
				names[n] = name
			}
			for n := range 1000 {
				if got, want := m.run(abi.audit, abi.bit+uint32(n)), plainly(want, names[n], n > last); got != want {
					t.Errorf("%s %d (%s): %#x, want %#x", abi.arch, n, names[n], got, want)
				}
			}
		}
	}
}

func lastCall(p *specs.LinuxSeccomp, abi abi) int {
	last := 0
	for _, call := range p.Syscalls {
		for _, name := range call.Names {
			last = max(last, abi.number[name])
		}
	}
	return last
}

// plainly is the action for a call whose arguments are all zero.
func plainly(p *specs.LinuxSeccomp, name string, beyond bool) uint32 {
	holds := func(a specs.LinuxSeccompArg) bool {
		switch a.Op {
		case specs.OpEqualTo:
			return a.Value == 0
		case specs.OpLessThan:
			return a.Value > 0
		}
		return a.Op == specs.OpMaskedEqual && a.ValueTwo == 0
	}
	for _, call := range p.Syscalls {
		if slices.Contains(call.Names, name) && !slices.ContainsFunc(call.Args, func(a specs.LinuxSeccompArg) bool { return !holds(a) }) {
			if call.Action == specs.ActAllow {
				return actAllow
			}
			return actErrno | uint32(*call.ErrnoRet)
		}
	}
	if beyond {
		return enosys
	}
	return eperm
}

// TestNumbers compares the numbers with the headers of this machine's kernel.
func TestNumbers(t *testing.T) {
	for i, file := range []string{"unistd_64.h", "unistd_x32.h", "unistd_32.h"} {
		abi := allABIs()[i]
		text, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/" + file)
		if errors.Is(err, os.ErrNotExist) {
			if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
				t.Fatal("no headers of the kernel here: apt-get install linux-libc-dev")
			}
			t.Skip("no headers of the kernel here")
		}
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?m)^#define __NR_(\w+) (?:\(__X32_SYSCALL_BIT \+ )?(\d+)\)?$`).FindAllStringSubmatch(string(text), -1)
		if len(found) < 300 {
			t.Errorf("%s: %d calls", file, len(found))
		}
		for _, f := range found {
			if n, _ := strconv.Atoi(f[2]); abi.number[f[1]] != n {
				t.Errorf("%s: %s is %d, the header says %d", abi.arch, f[1], abi.number[f[1]], n)
			}
		}
	}
}

// TestOperators tries each operator around the borders of both halves.
func TestOperators(t *testing.T) {
	values := []uint64{0, 1, 2, 0x7fffffff, 0xffffffff, 1 << 32, 1<<32 + 1, 5<<32 + 3, 5<<32 + 4, math.MaxUint64 - 1, math.MaxUint64}
	ops := map[specs.LinuxSeccompOperator]func(arg, v, two uint64) bool{
		specs.OpEqualTo:      func(a, v, _ uint64) bool { return a == v },
		specs.OpNotEqual:     func(a, v, _ uint64) bool { return a != v },
		specs.OpGreaterThan:  func(a, v, _ uint64) bool { return a > v },
		specs.OpGreaterEqual: func(a, v, _ uint64) bool { return a >= v },
		specs.OpLessThan:     func(a, v, _ uint64) bool { return a < v },
		specs.OpLessEqual:    func(a, v, _ uint64) bool { return a <= v },
		specs.OpMaskedEqual:  func(a, v, two uint64) bool { return a&v == two },
	}
	for op, holds := range ops {
		for _, v := range values {
			for _, two := range []uint64{0, 1, v} {
				p := Profile{&moby.Seccomp{LinuxSeccomp: specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86}}}}
				p.p.Syscalls = []*moby.Syscall{{LinuxSyscall: specs.LinuxSyscall{
					Names: []string{"read"}, Action: specs.ActAllow,
					Args: []specs.LinuxSeccompArg{{Index: 5, Op: specs.OpEqualTo, Value: 7 << 40}, {Index: 2, Value: v, ValueTwo: two, Op: op}},
				}}}
				m := compile(t, p, Target{})
				for _, a := range values {
					want := map[bool]uint32{true: actAllow, false: eperm}
					if got := m.run(auditX64, 0, 0, 0, a, 0, 0, 7<<40); got != want[holds(a, v, two)] {
						t.Errorf("%d %s %d %d: %#x", a, op, v, two, got)
					}
					if got := m.run(auditX64, 0, 0, 0, a, 0, 0, 7<<40+1); got != eperm {
						t.Errorf("%d %s %d %d: %#x, though the first condition does not hold", a, op, v, two, got)
					}
					low := func(x uint64) uint64 { return x & math.MaxUint32 }
					if got := m.run(auditX86, 3, 0, 0, low(a), 0, 0, 0); got != want[holds(low(a), low(v), low(two))] {
						t.Errorf("i386: %d %s %d %d: %#x", a, op, v, two, got)
					}
				}
			}
		}
	}
}

func TestProfiles(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		audit  uint32
		number uint32
		args   []uint64
		want   uint32
	}{
		"one call is denied":          {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}`, auditX64, unix.SYS_CHMOD, nil, actErrno | 5},
		"the others are not":          {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}`, auditX64, 5000, nil, actAllow},
		"old form":                    {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO","args":[]}]}`, auditX64, unix.SYS_CHMOD, nil, eperm},
		"default errno":               {`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ALLOW"}]}`, auditX64, 1, nil, actErrno | 13},
		"kill":                        {`{"defaultAction":"SCMP_ACT_KILL","syscalls":[]}`, auditX64, 1, nil, actKillThread},
		"trace":                       {`{"defaultAction":"SCMP_ACT_TRACE","defaultErrnoRet":9}`, auditX64, 1, nil, actTrace | 9},
		"log":                         {`{"defaultAction":"SCMP_ACT_LOG"}`, auditX64, 999, nil, actLog},
		"i386 is not listed":          {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"]}`, auditX86, 3, nil, actKillProcess},
		"x32 is not listed":           {`{"defaultAction":"SCMP_ACT_ALLOW"}`, auditX64, x32Bit, nil, actKillProcess},
		"x32 is listed":               {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X32"]}`, auditX64, x32Bit, nil, actAllow},
		"i386 socketcall":             {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO"}]}`, auditX86, 102, []uint64{1}, eperm},
		"i386 socketcall, another":    {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO"}]}`, auditX86, 102, []uint64{2}, actAllow},
		"i386 ipc":                    {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["shmget"],"action":"SCMP_ACT_ERRNO"}]}`, auditX86, 117, []uint64{23}, eperm},
		"unknown names":               {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["no_such_call"],"action":"SCMP_ACT_ERRNO"}]}`, auditX64, 1, nil, actAllow},
		"same argument: one of two":   {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}`, auditX64, 0, []uint64{2}, actAllow},
		"two arguments: both":         {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}`, auditX64, 0, []uint64{1, 3}, eperm},
		"unconditional wins":          {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, auditX64, 0, []uint64{1}, actAllow},
		"first condition wins":        {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_TRAP","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":3,"op":"SCMP_CMP_LE"}]}]}`, auditX64, 0, []uint64{1}, actTrap},
		"rule for an old kernel":      {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"6.1"}}]}`, auditX64, 0, nil, eperm},
		"rule for a new kernel":       {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.2"}}]}`, auditX64, 0, nil, eperm},
		"rule for this kernel":        {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.1"}}]}`, auditX64, 0, nil, actAllow},
		"rule for arm":                {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm"]}}]}`, auditX64, 0, nil, eperm},
		"rule for all but amd64":      {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}}]}`, auditX64, 0, nil, eperm},
		"rule with a capability":      {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_CHOWN"]}}]}`, auditX64, 0, nil, actAllow},
		"rule with more capabilities": {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_CHOWN","CAP_BPF"]}}]}`, auditX64, 0, nil, eperm},
	} {
		if got := compile(t, parse(t, c.text), dockerTarget()).run(c.audit, c.number, c.args...); got != c.want {
			t.Errorf("%s: %#x, want %#x", name, got, c.want)
		}
	}
	if f, err := parse(t, "{}").Filter(Target{}); err != nil || f.Program != nil {
		t.Errorf("an empty profile: %d bytes, %v", len(f.Program), err)
	}
}

func TestFlags(t *testing.T) {
	for text, want := range map[string]uint32{
		``:            unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		`,"flags":[]`: 0,
		`,"flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_TSYNC"]`: unix.SECCOMP_FILTER_FLAG_LOG,
	} {
		f, err := parse(t, `{"defaultAction":"SCMP_ACT_LOG"`+text+`}`).Filter(Target{})
		if err != nil || f.Flags != want {
			t.Errorf("%s: %#x, %v", text, f.Flags, err)
		}
	}
}

func TestRefusedProfiles(t *testing.T) {
	args := func(n int) string {
		return strings.TrimSuffix(strings.Repeat(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":99,"op":"SCMP_CMP_GT"}]},`, n), ",")
	}
	for text, want := range map[string]string{
		`{`:                                   "unexpected end",
		`[]`:                                  "cannot unmarshal",
		`{"defaultAction":"SCMP_ACT_NOPE"}`:   `unknown action "SCMP_ACT_NOPE"`,
		`{"syscalls":[{"names":["read"]}]}`:   `unknown action ""`,
		`{"defaultAction":"SCMP_ACT_NOTIFY"}`: "SCMP_ACT_NOTIFY is not supported",
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}`:                                                                       "errno 4096",
		`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}`:                                                                          "listener",
		`{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}`:                                                                                `flag "X"`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[null]}`:                                                                            "empty rule",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"name":"b"}]}`:                                                      "not both",
		`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}`:               "not both",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}`: "argument 6",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":0,"op":"=="}]}]}`:          `operator "=="`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","includes":{"minKernel":"6"}}]}`:            "kernel version",
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + args(1000) + `]}`:                                                              "the kernel takes 4096",
		`{"defaultAction":"SCMP_ACT_ALLOW","x":"` + strings.Repeat("x", MaxProfile) + `"}`:                                                "at most",
	} {
		p, err := Parse([]byte(text))
		if err == nil {
			_, err = p.Filter(Target{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v, want %q", text, err, want)
		}
	}
}

// FuzzProfile: whatever a profile says, there is an error or a program that the
// kernel would take, and that ends on every call.
func FuzzProfile(f *testing.F) {
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, uint32(auditX64), uint32(1), uint64(1))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":5,"value":1,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}]}]}`), uint32(auditX86), uint32(3), uint64(7))
	f.Fuzz(func(t *testing.T, text []byte, audit, number uint32, arg uint64) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		filter, err := p.Filter(dockerTarget())
		if err != nil || len(filter.Program) == 0 {
			return
		}
		m := load(t, filter.Program)
		for _, a := range []uint32{audit, auditX64, auditX86} {
			m.run(a, number, arg, arg, arg, arg, arg, arg)
		}
	})
}
