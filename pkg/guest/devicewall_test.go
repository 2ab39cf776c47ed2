package guest

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// access is what the kernel asks a program about.
type access struct{ kind, access, major, minor uint32 }

// interpret runs a program as the kernel would, as far as programs here go. It
// fails on an instruction that it does not know, and on a way that has no end.
func interpret(t *testing.T, program []instruction, a access) uint64 {
	t.Helper()
	var reg [11]uint64
	context := map[int16]uint32{0: a.access<<16 | a.kind, 4: a.major, 8: a.minor}
	for pc := 0; pc < len(program); pc++ {
		i := program[pc]
		to, from := i.registers&15, i.registers>>4
		switch i.op {
		case 0x61: // to = *(u32 *)(from + offset)
			word, ok := context[i.offset]
			if !ok || from != 1 {
				t.Fatalf("instruction %d loads from %d of register %d", pc, i.offset, from)
			}
			reg[to] = uint64(word)
		case 0xbc: // (u32) to = from
			reg[to] = uint64(uint32(reg[from]))
		case 0xb4: // (u32) to = value
			reg[to] = uint64(uint32(i.value))
		case 0x54: // (u32) to &= value
			reg[to] = uint64(uint32(reg[to]) & uint32(i.value))
		case 0x74: // (u32) to >>= value
			reg[to] = uint64(uint32(reg[to]) >> i.value)
		case 0x55: // if to != value skip
			if reg[to] != uint64(int64(i.value)) {
				pc += int(i.offset)
			}
		case 0x95:
			return reg[0]
		default:
			t.Fatalf("instruction %d has the unknown code %#x", pc, i.op)
		}
	}
	t.Fatal("the program has no end")
	return 0
}

// TestDeviceRules asks programs about devices. The numbers are the kernel's own.
func TestDeviceRules(t *testing.T) {
	const (
		block, char      = 1, 2
		mknod, rd, wr    = 1, 2, 4
		all, minorOfVDA  = 7, 0
		virtblk, nbd     = 254, 43
		mem, tty, ptmx   = 1, 5, 2
		console, pts, tu = 1, 136, 10
	)
	given := []specs.LinuxDevice{
		{Path: "/dev/d", Type: "b", Major: virtblk, Minor: 16}, {Path: "/dev/fuse", Type: "u", Major: 10, Minor: 229},
		{Path: "/dev/wide", Type: "c", Major: 4294967295, Minor: 4294967295}, {Path: "/dev/fifo", Type: "p"},
	}
	tests := []struct {
		name    string
		devices []specs.LinuxDevice
		access  access
		allowed bool
	}{
		{"make a disk", nil, access{block, mknod, virtblk, minorOfVDA}, true},
		{"make memory", nil, access{char, mknod, mem, 1}, true},
		{"read a disk", nil, access{block, rd, virtblk, minorOfVDA}, false},
		{"write a disk", nil, access{block, wr, nbd, 0}, false},
		{"read and write a disk", nil, access{block, rd | wr, nbd, 0}, false},
		{"make and read a disk", nil, access{block, mknod | rd, virtblk, minorOfVDA}, false},
		{"open memory", nil, access{char, rd, mem, 1}, false},
		{"read the kernel's log", nil, access{char, rd, mem, 11}, false},
		{"null", nil, access{char, rd | wr, mem, 3}, true},
		{"all of null", nil, access{char, all, mem, 3}, true},
		{"zero", nil, access{char, rd | wr, mem, 5}, true},
		{"full", nil, access{char, wr, mem, 7}, true},
		{"random", nil, access{char, rd, mem, 8}, true},
		{"urandom", nil, access{char, rd | wr, mem, 9}, true},
		{"tty", nil, access{char, rd | wr, tty, 0}, true},
		{"console of the VM", nil, access{char, rd | wr, tty, console}, false},
		{"ptmx", nil, access{char, rd | wr, tty, ptmx}, true},
		{"pts", nil, access{char, rd | wr, pts, 77}, true},
		{"more pts", nil, access{char, rd | wr, pts + 1, 0}, false},
		{"tun", nil, access{char, rd | wr, tu, 200}, true},
		{"fuse", nil, access{char, rd | wr, tu, 229}, false},
		{"serial port", nil, access{char, wr, 4, 64}, false},
		{"channel of the agent", nil, access{char, rd | wr, 247, 1}, false},
		{"block device with null's numbers", nil, access{block, rd, mem, 3}, false},
		{"no kind", nil, access{0, rd, mem, 3}, false},
		{"given disk", given, access{block, all, virtblk, 16}, true},
		{"disk beside the given one", given, access{block, rd, virtblk, 17}, false},
		{"given device as another kind", given, access{char, rd, virtblk, 16}, false},
		{"given fuse", given, access{char, rd | wr, 10, 229}, true},
		{"numbers that would mean any", given, access{char, rd, mem, 1}, false},
		{"a FIFO is no device", given, access{char, rd, 0, 0}, false},
		{"null of one with more", given, access{char, rd, mem, 3}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := containerRules(tt.devices)
			if err != nil {
				t.Fatal(err)
			}
			if got := interpret(t, deviceProgram(rules), tt.access); got != map[bool]uint64{true: 1}[tt.allowed] {
				t.Errorf("%d, want %v", got, tt.allowed)
			}
		})
	}
	if _, err := containerRules([]specs.LinuxDevice{{Path: "/dev/x", Type: "x"}}); err == nil {
		t.Error("a device of no type is taken")
	}
}

// TestRuleOfAccess is about rules as no container has them by now: a part of the
// access to some devices.
func TestRuleOfAccess(t *testing.T) {
	program := deviceProgram([]deviceRule{{2, 7, anyNumber, 2}, {2, 7, 9, 4}})
	for _, tt := range []struct {
		access
		want uint64
	}{
		{access{2, 2, 7, 1}, 1}, {access{2, 4, 7, 1}, 0}, {access{2, 6, 7, 1}, 0}, {access{2, 1, 7, 9}, 0},
		{access{2, 4, 7, 9}, 1}, {access{2, 6, 7, 9}, 0}, {access{2, 2, 8, 9}, 0}, {access{2, 0, 7, 1}, 1}, {access{2, 0, 8, 1}, 0},
	} {
		if got := interpret(t, program, tt.access); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.access, got, tt.want)
		}
	}
	if got := interpret(t, deviceProgram(nil), access{2, 1, 1, 3}); got != 0 {
		t.Errorf("no rule allows: %d", got)
	}
}

func TestLayoutOfBPF(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"bpf_insn", unsafe.Sizeof(instruction{}), 8}, {"its offset", unsafe.Offsetof(instruction{}.offset), 2}, {"its value", unsafe.Offsetof(instruction{}.value), 4},
		{"insns", unsafe.Offsetof(bpfLoad{}.program), 8}, {"license", unsafe.Offsetof(bpfLoad{}.license), 16}, {"attach", unsafe.Sizeof(bpfAttach{}), 16},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

// fakeBPF is a kernel that answers as it is told.
type fakeBPF struct {
	load, attach error
	probe        error // of a program that holds nothing
	again        int   // how often a signal comes first
	calls        []string
}

func (f *fakeBPF) call(command uintptr, attr unsafe.Pointer, _ uintptr) (int, error) {
	if command == unix.BPF_PROG_ATTACH {
		f.calls = append(f.calls, "attach")
		return 0, f.attach
	}
	name, err := "load", f.load
	if (*bpfLoad)(attr).count == uint32(len(verdict(1))) {
		name, err = "probe", f.probe
	}
	f.calls = append(f.calls, name)
	if f.again > 0 {
		f.again, err = f.again-1, unix.EAGAIN
	}
	if err != nil {
		return -1, err
	}
	return unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
}

// TestHoldDevices starts containers on kernels of all kinds.
func TestHoldDevices(t *testing.T) {
	tests := []struct {
		name   string
		kernel fakeBPF
		all    bool
		calls  string
		err    string
		logged string
	}{
		{name: "able", calls: "load attach"},
		{name: "all devices", all: true, kernel: fakeBPF{load: unix.EINVAL, probe: unix.EINVAL}},
		{name: "signals", kernel: fakeBPF{again: 2}, calls: "load load load attach"},
		{name: "no CONFIG_CGROUP_BPF", kernel: fakeBPF{load: unix.EINVAL, probe: unix.EINVAL}, calls: "load probe",
			logged: "micropod-agent: container c1 can open every device of its VM: the guest's kernel has no CONFIG_CGROUP_BPF (invalid argument)\n"},
		{name: "no CONFIG_BPF_SYSCALL", kernel: fakeBPF{load: unix.ENOSYS, probe: unix.ENOSYS}, calls: "load probe",
			logged: "micropod-agent: container c1 can open every device of its VM: the guest's kernel has no CONFIG_CGROUP_BPF (function not implemented)\n"},
		{name: "a wrong program", kernel: fakeBPF{load: unix.EINVAL}, calls: "load probe", err: "load the program: invalid argument"},
		{name: "no memory", kernel: fakeBPF{load: unix.ENOMEM, probe: unix.ENOMEM}, calls: "load probe", err: "load a program for devices: cannot allocate memory"},
		{name: "not attached", kernel: fakeBPF{attach: unix.EPERM}, calls: "load attach", err: "attach the program: operation not permitted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			a := newAgent(&console{w: &log}, nil)
			a.bpf = tt.kernel.call
			err := a.holdDevices(os.Stdin, api.StartRequest{ID: "c1", Spec: &api.Spec{Linux: &api.SpecLinux{}}, AllDevices: tt.all})
			if message(err) != tt.err || log.String() != tt.logged {
				t.Errorf("error %q, log %q; want %q, %q", message(err), log.String(), tt.err, tt.logged)
			}
			if got := strings.Join(tt.kernel.calls, " "); got != tt.calls {
				t.Errorf("calls %q, want %q", got, tt.calls)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestMayShare is about a second container in the VM of another one.
func TestMayShare(t *testing.T) {
	for _, tt := range []struct {
		kernel fakeBPF
		err    string
		noBPF  bool
	}{
		{fakeBPF{}, "", false},
		{fakeBPF{probe: unix.EINVAL}, "containers in one VM could open each other's disks: the guest's kernel has no CONFIG_CGROUP_BPF (invalid argument)", true},
		{fakeBPF{probe: unix.ENOSYS}, "containers in one VM could open each other's disks: the guest's kernel has no CONFIG_CGROUP_BPF (function not implemented)", true},
		{fakeBPF{probe: unix.EPERM}, "containers in one VM could open each other's disks: load a program for devices: operation not permitted", false},
		{fakeBPF{again: maxLoads}, "containers in one VM could open each other's disks: load a program for devices: resource temporarily unavailable", false},
	} {
		a := newAgent(&console{w: &bytes.Buffer{}}, nil)
		a.bpf = tt.kernel.call
		if err := a.mayShare(); message(err) != tt.err || errors.Is(err, errNoBPF) != tt.noBPF {
			t.Errorf("%v, want %q", err, tt.err)
		}
		if slices.Contains(tt.kernel.calls, "attach") {
			t.Error("a question has attached something")
		}
	}
}

// TestRootNeedsBPF refuses a second container before anything of it is mounted.
func TestRootNeedsBPF(t *testing.T) {
	kernel := fakeBPF{probe: unix.EINVAL}
	a := newAgent(&console{w: &bytes.Buffer{}}, nil)
	a.bpf, a.state = kernel.call, setUp
	_, err := a.makeRoot(&control{}, api.RootRequest{ID: "c2", Root: api.Root{Format: "erofs", Devices: []string{"/dev/nbd0"}}})
	if err == nil || !strings.Contains(err.Error(), "CONFIG_CGROUP_BPF") || len(a.roots) != 0 {
		t.Errorf("%v, %d roots", err, len(a.roots))
	}
}
