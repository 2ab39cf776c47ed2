package manager

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// limitDisks puts the limits of a container on the disks of its VM. For docker a
// path is the device that the container's files lie on. Here they lie on all
// disks of the VM, which are files of the host: a disk of the guest and a block
// device of the host both stand for them, and the limit counts for each.
func limitDisks(disks []vmm.Disk, h state.HostConfig) error {
	for _, kind := range []struct {
		devices []state.ThrottleDevice
		limit   func(*vmm.DiskLimits) *uint64
	}{
		{h.DeviceReadBps, func(l *vmm.DiskLimits) *uint64 { return &l.ReadBytes }},
		{h.DeviceWriteBps, func(l *vmm.DiskLimits) *uint64 { return &l.WriteBytes }},
		{h.DeviceReadIOps, func(l *vmm.DiskLimits) *uint64 { return &l.ReadOps }},
		{h.DeviceWriteIOps, func(l *vmm.DiskLimits) *uint64 { return &l.WriteOps }},
	} {
		for _, d := range kind.devices {
			if !isGuestDisk(d.Path, len(disks)) && !isBlockDevice(d.Path) {
				return fmt.Errorf("%w: no such device: %s: it is neither a disk of the VM (%s to %s) nor a block device of the host",
					ErrInvalid, d.Path, device(0), device(len(disks)-1))
			}
			for i := range disks {
				*kind.limit(&disks[i].Limits) = min(d.Rate, vmm.MaxDiskLimit)
			}
		}
	}
	return nil
}

func isGuestDisk(path string, disks int) bool {
	for i := range disks {
		if device(i) == path {
			return true
		}
	}
	return false
}

func isBlockDevice(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().Type()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}
