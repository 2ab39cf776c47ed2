package kvmhost

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/micropod/micropod/test/kvmhost/inside"
)

// File descriptors that QEMU inherits.
const (
	fdConsole = 3 + iota
	fdChannel
)

// machine is what the command line is made of.
type machine struct {
	kernel, initrd, scratch string
	memoryMiB, cpus         int
	virtualClock            bool
	writable                map[string]string // tag -> directory
}

// arguments is QEMU's command line without the program's name.
func arguments(m machine) []string {
	accel, cpus := "tcg,thread=multi", m.cpus
	var clock []string
	if m.virtualClock {
		// One nanosecond for each instruction, and nobody waits for real time.
		accel, cpus = "tcg,thread=single", 1
		clock = []string{"-icount", "shift=0,sleep=off"}
	}
	args := append([]string{
		"-name", "kvmhost", "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none",
		"-machine", "q35", "-accel", accel,
		// svm is what it is all about. npt and nrip-save spare most of the exits.
		"-cpu", "EPYC-v3,+svm,+npt,+nrip-save",
		"-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(m.memoryMiB),
		"-kernel", m.kernel, "-initrd", m.initrd, "-append", commandLine(),
	}, clock...)
	args = append(args,
		"-add-fd", "set=1,fd="+strconv.Itoa(fdConsole),
		"-chardev", "file,id=console,append=on,path=/dev/fdset/1", "-serial", "chardev:console",
		"-device", "virtio-serial-pci,max_ports=2",
		"-chardev", "socket,id=channel,fd="+strconv.Itoa(fdChannel),
		"-device", "virtserialport,chardev=channel,name="+inside.PortName,
		"-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng",
		"-drive", "id=scratch,if=none,format=raw,cache=unsafe,discard=unmap,file="+escape(m.scratch),
		"-device", "virtio-blk-pci,drive=scratch",
	)
	args = append(args, share("root", "/", true)...)
	for _, tag := range sortedKeys(m.writable) {
		args = append(args, share(tag, m.writable[tag], false)...)
	}
	return args
}

// share is a directory of this machine by 9p. Owners are left as they are: what
// cannot be read here cannot be read there.
func share(tag, path string, readOnly bool) []string {
	fsdev := fmt.Sprintf("local,id=%s,path=%s,security_model=none,multidevs=remap", tag, escape(path))
	if readOnly {
		fsdev += ",readonly=on"
	}
	return []string{"-fsdev", fsdev, "-device", fmt.Sprintf("virtio-9p-pci,fsdev=%s,mount_tag=%s", tag, tag)}
}

// commandLine is the kernel's. It takes the time stamp counters of an AMD machine
// with two CPUs for unsynchronized, unless told: then it would read the time from
// a device, and KVM move its guests' counters to and fro.
//
// The emulator loses an interrupt now and then where a guest is entered or left.
// A machine that sets its timer for one event at a time then sleeps for ever; a
// tick that comes by itself delivers the lost one too.
func commandLine() string {
	return strings.Join([]string{
		"console=ttyS0", "quiet", "panic=-1", "mitigations=off", "cryptomgr.notests",
		"tsc=reliable",
		"nohz=off", "highres=off",
		inside.Marker,
	}, " ")
}

// escape is for values of QEMU's options, in which a comma ends the value.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
