package guest

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// diskTimeout ends a disk whose host has left a request unanswered for so long.
// What is done to a disk of a machine that is merely slow cannot be undone: an
// error where it was mounted ends all writing.
const diskTimeout = 5 * time.Minute

// Of include/uapi/linux/nbd-netlink.h and nbd.h.
const (
	nbdConnect    = 1 // commands
	nbdDisconnect = 2

	nbdAttrIndex       = 1
	nbdAttrSize        = 2
	nbdAttrBlockSize   = 3
	nbdAttrWait        = 4 // seconds: NBD_ATTR_TIMEOUT
	nbdAttrServerFlags = 5
	nbdAttrClientFlags = 6
	nbdAttrSockets     = 7

	nbdSockItem = 1
	nbdSockFD   = 1

	nbdHasFlags  = 1 << 0
	nbdReadOnly  = 1 << 1
	nbdSendFlush = 1 << 2
	nbdSendFUA   = 1 << 3
	nbdSendTrim  = 1 << 5

	nbdDestroyOnDisconnect = 1 << 0
)

// nbd is the kernel's client for network block devices.
type nbd struct{ *genetlink }

// openNBD finds the client, and loads its module where that is needed.
func openNBD(mods *modules) (nbd, error) {
	g, err := openGenetlink("nbd")
	if errors.Is(err, errNoFamily) {
		// No devices in advance, and no looking for partitions in an image.
		if err := mods.loadLater(diskModules, "nbds_max=0 max_part=0"); err != nil {
			return nbd{}, err
		}
		g, err = openGenetlink("nbd")
	}
	if errors.Is(err, errNoFamily) {
		return nbd{}, errors.New("the guest's kernel has no CONFIG_BLK_DEV_NBD, or its module is not there (run scripts/download-kernel.sh --force)")
	}
	return nbd{g}, err
}

// connect makes a device whose requests go to a socket, and returns its index.
func (n nbd) connect(socket int, r api.DiskRequest) (uint32, error) {
	flags := uint64(nbdHasFlags | nbdSendFlush | nbdSendFUA | nbdSendTrim)
	if r.ReadOnly {
		flags = nbdHasFlags | nbdReadOnly
	}
	attrs, err := n.call(nbdConnect,
		attrU64(nbdAttrSize, uint64(r.Size)), attrU64(nbdAttrBlockSize, api.SectorSize),
		attrU64(nbdAttrWait, uint64(diskTimeout/time.Second)),
		attrU64(nbdAttrServerFlags, flags), attrU64(nbdAttrClientFlags, nbdDestroyOnDisconnect),
		attrNested(nbdAttrSockets, attrNested(nbdSockItem, attrU32(nbdSockFD, uint32(socket)))))
	if err != nil {
		return 0, err
	}
	for _, a := range attrs {
		if a.kind == nbdAttrIndex && len(a.value) == 4 {
			return binary.NativeEndian.Uint32(a.value), nil
		}
	}
	return 0, errors.New("the kernel does not say which device")
}

// disconnect fails what is still asked of a device and takes it away, at once or
// when nobody has it open any more.
func (n nbd) disconnect(index uint32) error {
	_, err := n.call(nbdDisconnect, attrU32(nbdAttrIndex, index))
	if errors.Is(err, unix.EINVAL) { // it is away
		return nil
	}
	return err
}
