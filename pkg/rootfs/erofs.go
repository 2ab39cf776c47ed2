package rootfs

import (
	"encoding/binary"
	"hash/crc32"
)

// The on-disk format of EROFS as Linux 5.16 and later read it:
// https://docs.kernel.org/filesystems/erofs.html and fs/erofs/erofs_fs.h.
// Only what the writer needs is here: extended inodes (64 bytes, nanosecond
// times, 32-bit owners), directories and small contents inline or in blocks,
// one chunk per larger file, inline xattrs, a device table. No compression.

const (
	erofsMagic       = 0xe0f5e1e2
	erofsSuperOffset = 1024
	erofsDeviceSlots = 2048 // byte offset of the device table
	erofsSlotSize    = 128
	erofsInodeSize   = 64
	erofsInodeStart  = blockSize // of the root; a nid is a byte offset / 32
	erofsNidShift    = 5

	erofsCompatChecksum   = 0x1
	erofsCompatMtime      = 0x2
	erofsIncompatChunked  = 0x4
	erofsIncompatDevTable = 0x8

	erofsLayoutPlain  = 0
	erofsLayoutInline = 2
	erofsLayoutChunk  = 4
	erofsChunkIndexes = 0x20 // chunk entries name device and block
	erofsNoBlock      = 0xffffffff

	erofsDirentSize  = 12
	erofsXattrHeader = 12
	erofsXattrEntry  = 4
)

// erofsType is the file type in a directory entry (EROFS_FT_*).
func erofsType(k kind) byte {
	return [kindEnd]byte{kindFile: 1, kindDir: 2, kindChar: 3, kindBlock: 4, kindFifo: 5, kindSymlink: 7}[k]
}

// modeType is the S_IFMT part of st_mode.
func modeType(k kind) uint16 {
	return [kindEnd]uint16{
		kindFile: 0o100000, kindDir: 0o040000, kindChar: 0o020000,
		kindBlock: 0o060000, kindFifo: 0o010000, kindSymlink: 0o120000,
	}[k]
}

// erofsDevice is a slot of the device table.
type erofsDevice struct {
	tag    string // up to 64 bytes
	blocks uint32
}

// erofsSuper is what differs between images in the superblock.
type erofsSuper struct {
	inodes  int
	blocks  uint32
	uuid    [16]byte
	devices []erofsDevice
}

// encode returns the first block of an image.
func (s erofsSuper) encode() []byte {
	block := make([]byte, blockSize)
	b := block[erofsSuperOffset:]
	le := binary.LittleEndian
	le.PutUint32(b[0:], erofsMagic)
	le.PutUint32(b[8:], erofsCompatChecksum|erofsCompatMtime)
	b[12] = 12 // log2 of the block size
	le.PutUint16(b[14:], erofsInodeStart>>erofsNidShift)
	le.PutUint64(b[16:], uint64(s.inodes))
	le.PutUint32(b[36:], s.blocks)
	copy(b[48:64], s.uuid[:])
	copy(b[64:80], "micropod")
	incompat := uint32(erofsIncompatChunked)
	if len(s.devices) > 0 {
		incompat |= erofsIncompatDevTable
		le.PutUint16(b[86:], uint16(len(s.devices)))
		le.PutUint16(b[88:], erofsDeviceSlots/erofsSlotSize)
	}
	le.PutUint32(b[80:], incompat)
	for i, d := range s.devices {
		slot := block[erofsDeviceSlots+i*erofsSlotSize:]
		copy(slot[:64], d.tag)
		le.PutUint32(slot[64:], d.blocks)
	}
	// The kernel's crc32c has no final inversion.
	le.PutUint32(b[4:], ^crc32.Checksum(b, castagnoli()))
	return block
}

// erofsInode is an inode before it is encoded.
type erofsInode struct {
	layout byte
	xattrs int // bytes of the xattr area
	mode   uint16
	size   int64
	data   uint32 // first block, device number or chunk format
	number uint32
	*inode
}

func (n erofsInode) encode(b []byte) []byte {
	le := binary.LittleEndian
	count := 0
	if n.xattrs > 0 {
		count = (n.xattrs-erofsXattrHeader)/4 + 1
	}
	b = le.AppendUint16(b, 1|uint16(n.layout)<<1) // extended
	b = le.AppendUint16(b, uint16(count))
	b = le.AppendUint16(b, n.mode)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(n.size))
	b = le.AppendUint32(b, n.data)
	b = le.AppendUint32(b, n.number)
	b = le.AppendUint32(b, n.uid)
	b = le.AppendUint32(b, n.gid)
	b = le.AppendUint64(b, uint64(n.sec))
	b = le.AppendUint32(b, n.nsec)
	b = le.AppendUint32(b, n.nlink)
	return append(b, make([]byte, 16)...)
}

// erofsXattrSize is the size of the xattr area of an inode.
func erofsXattrSize(enc string) int {
	if enc == "" {
		return 0
	}
	size := erofsXattrHeader
	for enc != "" {
		name, value, rest, err := nextXattr(enc)
		if err != nil {
			break // checked when the index was read
		}
		_, suffix, _ := splitXattr(name)
		size += (erofsXattrEntry + len(suffix) + len(value) + 3) &^ 3
		enc = rest
	}
	return size
}

// appendErofsXattrs appends the xattr area. No entry is shared, and no name
// filter is given: zero says that any name may be there.
func appendErofsXattrs(b []byte, enc string) []byte {
	if enc == "" {
		return b
	}
	b = append(b, make([]byte, erofsXattrHeader)...)
	for enc != "" {
		name, value, rest, err := nextXattr(enc)
		if err != nil {
			break
		}
		index, suffix, _ := splitXattr(name)
		b = append(b, byte(len(suffix)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(append(b, suffix...), value...)
		for n := erofsXattrEntry + len(suffix) + len(value); n%4 != 0; n++ {
			b = append(b, 0)
		}
		enc = rest
	}
	return b
}

// erofsChunkBits returns the chunk format of a file of one chunk: the smallest
// power of two of blocks that holds size.
func erofsChunkBits(size int64) uint32 {
	bits := uint32(0)
	for int64(blockSize)<<bits < size {
		bits++
	}
	return bits
}
