package guest

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNoBPF is what a kernel lacks that cannot hold a cgroup to its devices.
var errNoBPF = errors.New("the guest's kernel has no CONFIG_CGROUP_BPF")

// maxLoads bounds how often a program is loaded that signals keep from it.
const maxLoads = 20

// bpfCall is bpf(2): a value, so that a test can have a kernel without it.
type bpfCall func(command uintptr, attr unsafe.Pointer, size uintptr) (int, error)

func bpf(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}

// bpfLoad and bpfAttach are the beginnings of the kernel's union bpf_attr that the
// two commands need.
type bpfLoad struct {
	kind    uint32
	count   uint32
	program unsafe.Pointer
	license unsafe.Pointer
}

type bpfAttach struct {
	cgroup, program uint32
	kind, flags     uint32
}

// load has the kernel check a program of devices and returns its descriptor.
func (call bpfCall) load(program []instruction) (int, error) {
	var license byte // "": it calls nothing of the kernel's
	attr := bpfLoad{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)),
		program: unsafe.Pointer(unsafe.SliceData(program)), license: unsafe.Pointer(&license),
	}
	for tries := 1; ; tries++ {
		program, err := call(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		// The check ends early where a signal comes: Go's runtime sends some.
		if !errors.Is(err, unix.EAGAIN) || tries == maxLoads {
			return program, err
		}
	}
}

// attach makes a program decide about the devices of a cgroup and of those below
// it, beside the programs that they get: access needs the word of each. The cgroup
// holds the program from then on.
func (call bpfCall) attach(cgroup, program int) error {
	attr := bpfAttach{uint32(cgroup), uint32(program), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	_, err := call(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// holdDevices holds a cgroup to the devices that the rules allow. The error is
// errNoBPF where the kernel can hold none.
func (call bpfCall) holdDevices(cgroup int, rules []deviceRule) error {
	program, err := call.load(deviceProgram(rules))
	if err != nil {
		// A program that is wrong must not pass for a kernel that takes none.
		if unable := call.able(); unable != nil {
			return unable
		}
		return fmt.Errorf("load the program: %w", err)
	}
	defer unix.Close(program)
	if err := call.attach(cgroup, program); err != nil {
		return fmt.Errorf("attach the program: %w", err)
	}
	return nil
}

// able is nil where the kernel can hold a cgroup to its devices. It is asked anew
// each time: what it says cannot change, and hardly anybody asks.
func (call bpfCall) able() error {
	program, err := call.load(verdict(1))
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w (%w)", errNoBPF, err)
	case err != nil:
		return fmt.Errorf("load a program for devices: %w", err)
	}
	return unix.Close(program)
}
