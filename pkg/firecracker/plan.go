package firecracker

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/vmm"
)

const (
	guestCID = 3
	// maxDevices is how many virtio-mmio devices have an interrupt line
	// (5 to 23, less two for VMGenID and VMClock).
	maxDevices = 17
	// deviceArg is what one of them adds to the command line:
	// " virtio_mmio.device=4K@0xc0001000:12".
	deviceArg = 36
	// pciArg is what Firecracker adds once, from 1.13 on.
	pciArg = len(" pci=off")
)

// ownArgs are the kernel words that the driver needs. They replace
// Firecracker's defaults, which apply only to an empty command line.
//
// A guest that resets itself through the i8042 ends the VMM with 0, and so does
// a panic at once: power-off would halt the vCPUs for ever. The other i8042
// words skip a keyboard probe that costs half of a short run; nopnp is not
// among them, because SendCtrlAltDel needs it. One UART is what exists.
//
// Without pci=off, which only some releases add themselves, a kernel looks for
// PCI devices in 1,400 exits.
//
// Each byte on the console is an exit of the vCPU, so a kernel that starts says
// no more than what went wrong. Its self-tests of every cipher test nothing here.
const ownArgs = "console=ttyS0 8250.nr_uarts=1 quiet reboot=k panic=-1 pci=off cryptomgr.notests " +
	"i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce"

// plan turns a valid Config into the requests that configure the VM, in order.
// It looks at no file.
func plan(c vmm.Config) ([]Request, error) {
	// Besides the disks and NICs: vsock and entropy.
	devices := len(c.Disks) + len(c.NICs) + 2
	if devices > maxDevices {
		return nil, fmt.Errorf("%d disks and NICs: firecracker has room for %d", devices-2, maxDevices-2)
	}
	args, err := bootArgs(c.Args, devices)
	if err != nil {
		return nil, err
	}
	requests := []Request{
		PutMachineConfig(MachineConfig{VCPUCount: c.CPUs, MemSizeMiB: c.MemoryMiB}),
		PutBootSource(BootSource{KernelImagePath: c.Kernel, InitrdPath: c.Initrd, BootArgs: args}),
	}
	for i, d := range c.Disks {
		requests = append(requests, PutDrive(drive(i, d)))
	}
	for i, n := range c.NICs {
		// The guest is told the MTU by other means, which every release has.
		requests = append(requests, PutNetworkInterface(NetworkInterface{
			IfaceID: nicName(i), HostDevName: tapName(i, n), GuestMAC: n.MAC,
		}))
	}
	return append(requests,
		PutVsock(Vsock{GuestCID: guestCID, UDSPath: c.VsockPath}),
		PutEntropy(Entropy{}),
	), nil
}

// drive is the i-th disk. None is the root device: that one would come first
// whatever its place, and would add words to the command line.
func drive(i int, d vmm.Disk) Drive {
	out := Drive{DriveID: diskName(i), PathOnHost: d.Path, IsReadOnly: d.ReadOnly, RateLimiter: rateLimiter(d)}
	if !d.ReadOnly {
		// Without a flush feature the guest's fsync would mean nothing.
		out.CacheType = "Writeback"
	}
	return out
}

// rateLimiter is nil for a disk without limits. Firecracker counts reads and
// writes together, so that the lower limit is the one that holds both.
func rateLimiter(d vmm.Disk) *RateLimiter {
	l := d.Limits
	if d.ReadOnly {
		l.WriteBytes, l.WriteOps = 0, 0
	}
	r := RateLimiter{Bandwidth: bucket(l.ReadBytes, l.WriteBytes), Ops: bucket(l.ReadOps, l.WriteOps)}
	if r.Bandwidth == nil && r.Ops == nil {
		return nil
	}
	return &r
}

// bucket holds what the lower limit allows in a second; zero is no limit.
func bucket(a, b uint64) *TokenBucket {
	size := min(a, b)
	if size == 0 {
		size = max(a, b)
	}
	if size == 0 {
		return nil
	}
	return &TokenBucket{Size: size, RefillTime: 1000}
}

// nicName is the name of the i-th NIC in the API.
func nicName(i int) string { return "eth" + strconv.Itoa(i) }

// diskName is the name of the i-th virtio disk in the guest: vda, vdb, …
func diskName(i int) string { return "vd" + string(rune('a'+i)) }

// bootArgs joins the driver's words and the caller's, within what the command
// line holds once Firecracker has added its own for each device.
func bootArgs(words []string, devices int) (string, error) {
	line := strings.Join(append([]string{ownArgs}, words...), " ")
	budget := maxCmdline - 1 - pciArg - devices*deviceArg // 1: the final NUL
	if len(line) > budget {
		return "", fmt.Errorf("kernel command line of %d bytes is over the %d that firecracker leaves with %d devices", len(line), budget, devices)
	}
	return line, nil
}
