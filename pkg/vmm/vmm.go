// Package vmm is the contract between MicroPod and a virtual machine monitor.
//
// A Driver starts a Machine from a plain Config; everything above it sees the
// same disks, the same console file and the same vsock socket whichever VMM
// runs. The package holds no VMM code of its own: pkg/firecracker and pkg/qemu
// implement it, vmmtest is the suite that both must pass.
//
// Lifecycle: Start either returns a running Machine or leaves nothing behind.
// A Machine ends by itself (guest reboot, crash) or by Kill; Wait reports how.
// After Wait has returned, every process, socket and file that the driver made
// is gone, except the console log.
package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// ErrUnavailable is wrapped by errors of a Driver that cannot run on this host:
// no binary, no usable /dev/kvm, wrong architecture.
var ErrUnavailable = errors.New("vmm not available")

// Kinds of acceleration, as in Availability.Accel.
const (
	AccelKVM = "kvm" // hardware virtualization
	AccelTCG = "tcg" // software emulation, no security boundary
)

// Config describes one microVM. It holds no text of a user, an image or a
// registry: only paths that MicroPod chose, and numbers.
type Config struct {
	// ID names the VM: 12 to 64 characters of [a-z0-9].
	ID string
	// Kernel is the path of an uncompressed ELF vmlinux.
	Kernel string
	// Initrd is the path of the initramfs.
	Initrd string
	// Args are kernel command line words, added to those that the driver
	// needs for itself. No word may hold a space, a quote or a control character.
	Args []string
	// CPUs is the number of vCPUs, 1 to 32.
	CPUs int
	// MemoryMiB is the guest's memory in MiB, at least 32.
	MemoryMiB int
	// Disks appear in the guest as /dev/vda, /dev/vdb, … in this order.
	Disks []Disk
	// NICs appear in the guest as virtio network devices.
	NICs []NIC
	// VsockPath is the unix socket that the driver offers in Firecracker's
	// host-side vsock protocol: "CONNECT <port>\n" is answered by "OK <n>\n"
	// and a raw stream. Guest connections to host port P arrive at
	// VsockPath_P, where the caller listens before Start. At most 100 bytes.
	VsockPath string
	// ConsolePath receives the guest's serial console. The file is created
	// 0600 and never grows beyond ConsoleLimit bytes; what does not fit is
	// dropped and counted.
	ConsolePath  string
	ConsoleLimit int64
	// Dir is an existing directory, private to this VM, for the driver's own
	// sockets and logs. The driver removes what it put there.
	Dir string
	// Templates is a directory, private to this user, in which a driver may keep
	// the state of a guest that has booted, and start later VMs from it; ""
	// forbids that. It is for a guest that reads nothing of its disks, and keeps
	// nothing of its own, before the host answers on its channel, and that connects
	// to the host once more where its connections were reset before that.
	Templates string
}

// Disk is a block device backed by a raw file.
type Disk struct {
	Path string
	// ReadOnly opens the file O_RDONLY in the VMM itself: no guest can write it.
	ReadOnly bool
	Limits   DiskLimits
}

// DiskLimits bound what the guest does with one disk, each in a second: bytes
// and requests. Zero is no limit. A VMM that has one limit for both directions
// takes the lower one for a disk that can be written. How much may come at once
// is the VMM's choice, within what a second allows.
type DiskLimits struct {
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// MaxDiskLimit is the highest limit of a Config: the highest that QEMU knows.
const MaxDiskLimit = 1_000_000_000_000_000

// NIC is a network device.
type NIC struct {
	// MAC is the device's address, as 02:00:00:00:00:01: unicast, not zero. A
	// guest that goes on from a template may find TemplateMAC in its place, and
	// has to give the device this one.
	MAC string
	// MTU of the link, in bytes, 1280 to 65520.
	MTU int
	// Device names a TAP device of the host, at most 15 bytes of [a-z0-9-], for
	// the other end: the host's kernel sees what the guest sends as the guest
	// offloads it. "" is a Linker's Link.
	//
	// When Start returns, the device is in the network namespace of the thread
	// that called it, has this MTU, is not up, and is nobody's but the VMM's. A
	// device that exists before is an error. It is gone when Done is closed, and
	// when all of our processes were killed. It takes CAP_NET_ADMIN, and of a
	// VMM in a namespace of its own, root.
	Device string
}

// TemplateMAC is the address of the i-th NIC of a template, which VMs with any
// addresses go on from: a device's address is a part of its saved state.
func TemplateMAC(i int) string { return fmt.Sprintf("02:00:00:00:fe:%02x", i) }

// Availability says whether a Driver can run here, and why.
type Availability struct {
	OK bool
	// Binary is the path of the VMM program, "" when there is none.
	Binary string
	// Version is what the program reports, for example "1.16.1".
	Version string
	// Accel is "kvm" for hardware virtualization, "tcg" for emulation.
	// Emulation is no security boundary.
	Accel string
	// Reason is one line for people: why it works this way or does not work.
	Reason string
	// Fix is what to do about it, "" if nothing.
	Fix string
}

// Driver starts microVMs on one kind of VMM. Safe for concurrent use.
type Driver interface {
	// Name is "firecracker" or "qemu".
	Name() string
	// Probe looks at the host and never changes it.
	Probe(ctx context.Context) Availability
	// Start boots a VM and returns once its vCPUs run. ctx bounds only the
	// start. On an error nothing is left behind.
	Start(ctx context.Context, c Config) (Machine, error)
}

// Cleaner is a Driver whose VMs own more than their process and Config.Dir,
// such as cgroups. The process that called Start frees that at the VM's end;
// Clean is for when it was killed.
type Cleaner interface {
	// Clean ends and frees what is left of the VM. It is called with the
	// Config's ID and Dir, when nobody can start or watch that VM, with what
	// is in Dir still there. Idempotent, and no error for a VM that left nothing.
	Clean(id, dir string) error
}

// Checker is a Cleaner that can tell what Clean would free, without doing it.
type Checker interface {
	// Leftovers lists what is left of a VM outside of its Config.Dir, each as a
	// path. It is called under the conditions of Clean.
	Leftovers(id string) ([]string, error)
	// Strays lists what was left, by VMs of this host that are no more, in places
	// that all of them share. What a living process holds is not among it.
	Strays() ([]string, error)
	// RemoveStrays removes that. Idempotent.
	RemoveStrays() error
}

// Machine is one running VM. Safe for concurrent use.
type Machine interface {
	// PID is the process id of the VMM.
	PID() int
	// Done is closed once the VMM has ended and all that belonged to it is freed.
	Done() <-chan struct{}
	// Exit tells how the VMM ended. Valid after Done is closed.
	Exit() Exit
	// Kill ends the VM at once and returns when Done is closed. Idempotent.
	Kill() error
}

// Templated is a Machine that may have gone on from a template.
type Templated interface {
	// FromTemplate reports that it has not booted. It never changes.
	FromTemplate() bool
	// Heard tells it that the guest has spoken. A template whose guest never does
	// is not used again.
	Heard()
}

// Linker is a Machine with NICs.
type Linker interface {
	// Link is the host's end of the i-th NIC: each read is one Ethernet frame
	// of the guest, each write is one for it. It belongs to the Machine, and is
	// closed before Done is. nil for a NIC with a Device.
	Link(i int) *os.File
}

// Exit tells how a VMM process ended. It says nothing about the workload:
// that is a message of the agent.
type Exit struct {
	// Code is the exit code, or -1 when a signal ended the process.
	Code int
	// Signal is the number of that signal, else 0.
	Signal int
	// Reason is one line for people, "" for a clean end.
	Reason string
}
