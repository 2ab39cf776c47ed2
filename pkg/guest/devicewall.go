package guest

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// What may be done with a device: BPF_DEVCG_ACC_… together.
const (
	accessMake = unix.BPF_DEVCG_ACC_MKNOD
	accessAll  = unix.BPF_DEVCG_ACC_MKNOD | unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE
)

// anyNumber stands for all major or minor numbers.
const anyNumber = -1

// deviceRule allows access to devices of a kind, BPF_DEVCG_DEV_….
type deviceRule struct {
	kind         uint32
	major, minor int64
	access       uint32
}

// baseRules allow what docker and runc allow in every container, but for the console:
// the VM's is the agent's, which a container could keep from writing to it, and a
// container's own is a terminal. A node may be made of any device: an archive that is
// unpacked may hold one, and to make is not to open.
func baseRules() []deviceRule {
	const char, block = unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_DEV_BLOCK
	rules := []deviceRule{
		{char, anyNumber, anyNumber, accessMake},
		{block, anyNumber, anyNumber, accessMake},
		{char, 5, 2, accessAll},           // ptmx: of the devpts beside the node
		{char, 136, anyNumber, accessAll}, // pts: opens in a devpts only
		{char, 10, 200, accessAll},        // net/tun: asks for CAP_NET_ADMIN itself
	}
	for _, d := range defaultDevices() {
		rules = append(rules, d.rules()...)
	}
	return rules
}

// rules allow all access to d. A FIFO needs none.
func (d device) rules() []deviceRule {
	r := deviceRule{major: int64(d.major), minor: int64(d.minor), access: accessAll}
	switch d.mode & unix.S_IFMT {
	case unix.S_IFCHR:
		r.kind = unix.BPF_DEVCG_DEV_CHAR
	case unix.S_IFBLK:
		r.kind = unix.BPF_DEVCG_DEV_BLOCK
	default:
		return nil
	}
	return []deviceRule{r}
}

// containerRules are for a container that is given more devices.
func containerRules(more []specs.LinuxDevice) ([]deviceRule, error) {
	rules := baseRules()
	for _, m := range more {
		d, err := specDevice(m)
		if err != nil {
			return nil, err
		}
		rules = append(rules, d.rules()...)
	}
	return rules, nil
}

// holdDevices holds a container to its devices, in its cgroup, where nothing runs
// yet. It has CAP_MKNOD, as in docker: without this it could make itself a node of
// any disk of the guest.
func (a *agent) holdDevices(cgroup *os.File, r api.StartRequest) error {
	if r.AllDevices {
		return nil
	}
	rules, err := containerRules(r.Spec.Linux.Devices)
	if err != nil {
		return err
	}
	err = a.bpf.holdDevices(int(cgroup.Fd()), rules)
	if errors.Is(err, errNoBPF) {
		// Alone in its VM a container finds no disks but its own: see mayShare.
		a.log.printf("container %s can open every device of its VM: %v", r.ID, err)
		return nil
	}
	return err
}

// mayShare is nil where a second container may come into the guest: each can be
// held to its own devices, and so from the other's disks.
func (a *agent) mayShare() error {
	if err := a.bpf.able(); err != nil {
		return fmt.Errorf("containers in one VM could open each other's disks: %w", err)
	}
	return nil
}

// instruction is struct bpf_insn of Linux; registers holds the source above the
// destination.
type instruction struct {
	op        uint8
	registers uint8
	offset    int16
	value     int32
}

// Registers of a program. The kernel begins with the address of struct
// bpf_cgroup_dev_ctx in regContext, which is free once all of that has been read.
const (
	regResult = iota
	regContext
	regKind
	regAccess
	regMajor
	regMinor
)

// Offsets in struct bpf_cgroup_dev_ctx. The first number has the kind in its low
// half, and the access that is asked for in the high one.
const (
	contextAccess = 0
	contextMajor  = 4
	contextMinor  = 8
)

// deviceProgram allows what one of the rules allows: a pure function.
func deviceProgram(rules []deviceRule) []instruction {
	p := []instruction{
		loadWord(regMinor, contextMinor),
		loadWord(regMajor, contextMajor),
		loadWord(regAccess, contextAccess),
		move(regKind, regAccess),
		compute(unix.BPF_AND, regKind, 0xffff),
		compute(unix.BPF_RSH, regAccess, 16),
	}
	for _, r := range rules {
		p = append(p, r.code()...)
	}
	return append(p, verdict(0)...)
}

// code answers if the rule allows the access, and else goes on behind itself.
func (r deviceRule) code() []instruction {
	c := verdict(1)
	for _, n := range []struct {
		register uint8
		number   int64
	}{{regMinor, r.minor}, {regMajor, r.major}} {
		if n.number != anyNumber {
			c = append([]instruction{skipUnless(n.register, int32(n.number), len(c))}, c...)
		}
	}
	if r.access != accessAll {
		c = append([]instruction{
			move(regContext, regAccess),
			compute(unix.BPF_AND, regContext, int32(^r.access)),
			skipUnless(regContext, 0, len(c)),
		}, c...)
	}
	return append([]instruction{skipUnless(regKind, int32(r.kind), len(c))}, c...)
}

func loadWord(to uint8, offset int16) instruction {
	return instruction{op: unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W, registers: regContext<<4 | to, offset: offset}
}

// move and compute have 32 bits, and clear the other half.
func move(to, from uint8) instruction {
	return instruction{op: unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X, registers: from<<4 | to}
}

func compute(operation, register uint8, value int32) instruction {
	return instruction{op: unix.BPF_ALU | operation | unix.BPF_K, registers: register, value: value}
}

// skipUnless skips n instructions unless the register has the value.
func skipUnless(register uint8, value int32, n int) instruction {
	return instruction{op: unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K, registers: register, offset: int16(n), value: value}
}

// verdict ends a program: 1 allows the access.
func verdict(result int32) []instruction {
	return []instruction{
		{op: unix.BPF_ALU | unix.BPF_MOV | unix.BPF_K, registers: regResult, value: result},
		{op: unix.BPF_JMP | unix.BPF_EXIT},
	}
}
