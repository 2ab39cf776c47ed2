package api

import (
	"fmt"
	"strconv"
	"strings"
)

// PurposeDisk is a disk for a guest that runs already. The guest answers its Open
// with a Reply, whose result is a DiskReply. After that there are no more frames:
// the guest's kernel sends requests of the NBD protocol's transmission phase, and
// the host answers them (package nbd). The connection's end is the device's.
const PurposeDisk Purpose = "disk"

// MethodDetach has the guest write what it holds for a disk, and then take it away.
const MethodDetach Method = "detach"

// SectorSize is what a disk's size is a multiple of, in bytes.
const SectorSize = 512

// DiskRequest opens a connection of PurposeDisk.
type DiskRequest struct {
	Size     int64 `json:"size"` // bytes, a multiple of SectorSize
	ReadOnly bool  `json:"readOnly,omitempty"`
}

// DiskReply says where the disk is. It has its size already.
type DiskReply struct {
	Device string `json:"device"` // /dev/nbd and a number
}

// DetachRequest names a disk by its device.
type DetachRequest struct {
	Device string `json:"device"`
}

// IsDiskDevice reports whether dev is of the form of DiskReply.
func IsDiskDevice(dev string) bool {
	number, ok := strings.CutPrefix(dev, "/dev/nbd")
	n, err := strconv.ParseUint(number, 10, 16)
	return ok && err == nil && strconv.FormatUint(n, 10) == number
}

// Check reports whether a guest's answer is of the form that it must have.
func (r DiskReply) Check() error {
	if !IsDiskDevice(r.Device) {
		return fmt.Errorf("disk at %q: %w", Clean(r.Device, maxName), ErrFrame)
	}
	return nil
}
