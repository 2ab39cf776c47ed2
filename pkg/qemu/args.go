package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/vmm"
)

// File descriptors that QEMU inherits, in the order of process.files.
const (
	fdConsole = 3 + iota
	fdAgent
	fdQMP
	fdNIC // and on: one for each NIC, then the template of a VM that starts from one
)

// The kernel's COMMAND_LINE_SIZE on x86, with the final NUL.
const maxCommandLine = 2048

// machine turns off what a microVM has no use for. The timer (pit), the
// interrupt controller (pic) and the clock (rtc) stay: without them the kernel
// hangs or spends longer to calibrate its clock.
const machine = "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,ioapic2=on," +
	"usb=off,pcie=off,graphics=off,x-option-roms=off,dump-guest-core=off,mem-merge=off,auto-kernel-cmdline=off"

// sandbox is QEMU's seccomp filter: no new processes, no other identity.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// platform is what the command line depends on besides the Config.
type platform struct {
	accel   string
	sandbox bool // QEMU has its seccomp filter
	tscKHz  int  // frequency of the host's time stamp counter, for emulation
	role    role
}

// role is what a QEMU is started for.
type role int

const (
	boot      role = iota // a VM from its kernel's first instruction on
	fromState             // a VM that goes on from a template
	makeState             // a guest that is to become a template: no disk, no host
)

// arguments is QEMU's command line without the program's name. It depends on
// nothing else: no file is opened, nothing is looked up.
func arguments(c vmm.Config, p platform) ([]string, error) {
	cmdline := commandLine(c, p)
	if len(cmdline) >= maxCommandLine {
		return nil, fmt.Errorf("kernel command line of %d bytes: at most %d", len(cmdline), maxCommandLine-1)
	}
	args := []string{
		"-name", "micropod-" + c.ID,
		"-no-user-config", "-nodefaults", "-no-reboot",
		"-display", "none",
	}
	if p.sandbox {
		args = append(args, "-sandbox", sandbox)
	}
	args = append(args, "-machine", machine)
	args = append(args, accelerator(p.accel, c.CPUs)...)
	n := strconv.Itoa(c.CPUs)
	args = append(args,
		"-smp", "cpus="+n+",maxcpus="+n+",sockets=1,cores="+n+",threads=1",
		"-m", strconv.Itoa(c.MemoryMiB)+"M",
		"-kernel", c.Kernel,
		"-initrd", c.Initrd,
		"-append", cmdline,
		"-global", "virtio-mmio.force-legacy=false",
	)
	args = append(args, disks(c.Disks, p.role)...)
	args = append(args, nics(c.NICs, p.role)...)
	args = append(args, channels(p.role)...)
	if p.role == fromState {
		args = append(args, "-incoming", "fd:"+strconv.Itoa(fdNIC+len(c.NICs)))
	}
	return args, nil
}

// accelerator and CPU. Emulation offers all that it can (images are built for
// x86-64-v2 and v3), except the two flags that make Linux and libc copy and
// clear memory by the byte, which costs an emulator eight times the work: 14%
// of the instructions of a boot.
//
// Where an emulated guest has several CPUs, they take turns in one thread. With a
// thread for each, QEMU before 8.1 may keep the translation of an instruction that
// another CPU has replaced meanwhile, as Linux does with its own (static keys): then
// a CPU meets a breakpoint for ever that is not there any more. Mended by QEMU's
// commit deba78709ae8, "accel/tcg: Always lock pages before translation". One CPU
// is faster in a thread of that kind, by a tenth of a boot.
func accelerator(accel string, cpus int) []string {
	if accel == accelKVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	thread := "single"
	if cpus == 1 {
		thread = "multi"
	}
	return []string{"-accel", "tcg,thread=" + thread, "-cpu", "max,-erms,-fsrm"}
}

// Virtio-mmio buses. QEMU lists them in the ACPI tables from the last to the
// first, and the kernel names disks in the order of that list, so the first
// disk takes the last bus. Bus 0 is not used: its interrupt, the second
// IO-APIC's first, never reaches the guest.
const (
	busLast   = 23 // with ioapic2=on
	busNIC    = 3  // and on
	busSerial = 2
	busRNG    = 1
)

// disks attaches the disks so that they are vda, vdb, … in this order.
func disks(list []vmm.Disk, r role) []string {
	var args []string
	for i, d := range list {
		node := "disk" + strconv.Itoa(i)
		backend := blockdev(node, d)
		switch {
		case r == makeState:
			backend = emptyDisk(node, d.ReadOnly)
		case d.Limits != (vmm.DiskLimits{}):
			args = append(args, "-object", throttleGroup(node, d.Limits))
		}
		args = append(args,
			"-blockdev", backend,
			"-device", fmt.Sprintf("virtio-blk-device,bus=virtio-mmio-bus.%d,drive=%s,werror=report,rerror=report", busLast-i, node),
		)
	}
	return args
}

// blockdevFile, and the types after it, are QEMU's BlockdevOptions.
type blockdevFile struct {
	Driver   string `json:"driver"`
	Filename string `json:"filename"`
	ReadOnly bool   `json:"read-only"`
	AutoRO   bool   `json:"auto-read-only"`
	Locking  string `json:"locking"`
}

type blockdevRaw struct {
	Driver   string       `json:"driver"`
	Node     string       `json:"node-name,omitempty"`
	ReadOnly bool         `json:"read-only"`
	AutoRO   bool         `json:"auto-read-only"`
	Discard  string       `json:"discard"`
	File     blockdevFile `json:"file"`
}

type blockdevThrottle struct {
	Driver   string      `json:"driver"`
	Node     string      `json:"node-name"`
	Group    string      `json:"throttle-group"`
	ReadOnly bool        `json:"read-only"`
	AutoRO   bool        `json:"auto-read-only"`
	Discard  string      `json:"discard"`
	File     blockdevRaw `json:"file"`
}

// blockdev describes a raw file. It is JSON since a path may hold a comma. The
// format is never guessed: the guest writes the first sector. QEMU's file
// locks stay on: any number of VMs may read a disk, but a disk that one VM
// writes is no other's.
func blockdev(node string, d vmm.Disk) string {
	raw := blockdevRaw{
		Driver: "raw", Node: node, ReadOnly: d.ReadOnly, Discard: "unmap",
		File: blockdevFile{Driver: "file", Filename: d.Path, ReadOnly: d.ReadOnly, Locking: "auto"},
	}
	if d.Limits == (vmm.DiskLimits{}) {
		return encode(raw)
	}
	raw.Node = ""
	return encode(blockdevThrottle{
		Driver: "throttle", Node: node, Group: limitsOf(node), ReadOnly: d.ReadOnly, Discard: "unmap", File: raw,
	})
}

// limitsOf names the limits of a disk.
func limitsOf(node string) string { return node + "-limits" }

// throttleGroup holds the limits of one disk.
func throttleGroup(node string, l vmm.DiskLimits) string {
	type limits struct {
		ReadBytes  uint64 `json:"bps-read,omitempty"`
		WriteBytes uint64 `json:"bps-write,omitempty"`
		ReadOps    uint64 `json:"iops-read,omitempty"`
		WriteOps   uint64 `json:"iops-write,omitempty"`
	}
	type group struct {
		Type   string `json:"qom-type"`
		ID     string `json:"id"`
		Limits limits `json:"limits"`
	}
	return encode(group{"throttle-group", limitsOf(node), limits(l)})
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain strings, numbers and booleans
	}
	return string(b)
}

// emptyDisk describes a disk of nothing but zeros, with no file.
func emptyDisk(node string, readOnly bool) string {
	type null struct {
		Driver   string `json:"driver"`
		Node     string `json:"node-name"`
		ReadOnly bool   `json:"read-only"`
		Size     int64  `json:"size"`
		Zeros    bool   `json:"read-zeroes"`
	}
	return encode(null{Driver: "null-co", Node: node, ReadOnly: readOnly, Size: 1 << 20, Zeros: true})
}

// nics attaches network devices. The frames of one without a Device come and go
// through a socket of datagrams: no device of the host, no name, no privilege.
func nics(list []vmm.NIC, r role) []string {
	var args []string
	fd := fdNIC
	for i, n := range list {
		id, mac := "nic"+strconv.Itoa(i), n.MAC
		if r == makeState {
			mac = vmm.TemplateMAC(i)
		}
		var link string
		switch {
		case n.Device != "":
			link = fmt.Sprintf("tap,id=%s,fd=%d,vhost=off", id, fd)
			fd++
		case r == makeState:
			link = "hubport,id=" + id + ",hubid=" + strconv.Itoa(i) // a hub with nothing else
		default:
			link = fmt.Sprintf("socket,id=%s,fd=%d", id, fd)
			fd++
		}
		args = append(args,
			"-netdev", link,
			"-device", fmt.Sprintf("virtio-net-device,bus=virtio-mmio-bus.%d,netdev=%s,mac=%s,host_mtu=%d", busNIC+i, id, mac, n.MTU),
		)
	}
	return args
}

// channels adds the guest's port, entropy, the serial console and QMP.
func channels(r role) []string {
	socket := func(id string, fd int) string {
		return "socket,id=" + id + ",fd=" + strconv.Itoa(fd)
	}
	agent := socket("agent", fdAgent)
	if r == makeState {
		agent = "null,id=agent" // which the guest sees as a host that has not come yet
	}
	return []string{
		"-device", fmt.Sprintf("virtio-serial-device,bus=virtio-mmio-bus.%d,max_ports=2", busSerial),
		"-chardev", agent,
		"-device", "virtserialport,id=" + AgentPort + ",chardev=agent,name=" + AgentPort,
		"-object", "rng-builtin,id=rng",
		"-device", fmt.Sprintf("virtio-rng-device,bus=virtio-mmio-bus.%d,rng=rng", busRNG),
		// A pipe: QEMU writes byte by byte, of which a socket holds some hundred,
		// a pipe 64 KiB. What finds no room is lost.
		"-add-fd", "set=1,fd=" + strconv.Itoa(fdConsole),
		"-chardev", "file,id=console,append=on,path=/dev/fdset/1",
		"-serial", "chardev:console",
		"-chardev", socket("qmp", fdQMP),
		"-mon", "chardev=qmp,mode=control",
	}
}

// commandLine is the kernel's: what this machine needs, then c.Args, which win.
func commandLine(c vmm.Config, p platform) string {
	words := []string{
		"console=ttyS0", "8250.nr_uarts=1", "quiet",
		// The guest leaves, or panics, by a triple fault, which ends QEMU at
		// once (-no-reboot): microvm has no other way out.
		"reboot=t", "panic=-1",
		"cryptomgr.notests", // self-tests of every cipher
		"noreplace-smp",     // rewriting every lock for one CPU
	}
	if p.accel == accelTCG && p.tscKHz != 0 { // a template has read its command line
		words = append(words, "tsc_early_khz="+strconv.Itoa(p.tscKHz), "tsc=reliable") // tsc.go
	}
	return strings.Join(append(words, c.Args...), " ")
}
