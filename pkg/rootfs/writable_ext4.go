package rootfs

import "encoding/binary"

// Feature flags of the superblock.
const (
	ext4HasJournal   = 0x4  // compatible
	ext4ExtAttr      = 0x8  //
	ext4DirIndex     = 0x20 //
	ext4SparseSuper2 = 0x200

	ext4FileType = 0x2 // incompatible
	ext4Extents  = 0x40

	ext4LargeFile    = 0x2 // read-only compatible
	ext4HugeFile     = 0x8
	ext4DirNlink     = 0x20
	ext4ExtraIsize   = 0x40
	ext4MetadataCsum = 0x400
)

// superblock returns block 0. With sparse_super2 and no backup groups it is
// the only copy.
func (w *ext4Writer) superblock() []byte {
	le := binary.LittleEndian
	block := make([]byte, blockSize)
	b := block[1024:2048]
	le.PutUint32(b[0x00:], uint32(w.groups*w.groupInodes))
	le.PutUint32(b[0x04:], uint32(w.blocks))
	le.PutUint32(b[0x0c:], uint32(w.freeBlocks()))
	le.PutUint32(b[0x10:], uint32(w.groups*w.groupInodes-ext4FirstInode))
	le.PutUint32(b[0x18:], 2) // log2 of block size / 1024
	le.PutUint32(b[0x1c:], 2) // cluster size, the same
	le.PutUint32(b[0x20:], ext4GroupBlocks)
	le.PutUint32(b[0x24:], ext4GroupBlocks)
	le.PutUint32(b[0x28:], uint32(w.groupInodes))
	le.PutUint16(b[0x36:], 0xffff) // no check after a number of mounts
	le.PutUint16(b[0x38:], 0xef53) // magic
	le.PutUint16(b[0x3a:], 1)      // clean
	le.PutUint16(b[0x3c:], 1)      // on errors: continue
	le.PutUint32(b[0x4c:], 1)      // revision with dynamic inode sizes
	le.PutUint32(b[0x54:], ext4FirstInode)
	le.PutUint16(b[0x58:], ext4InodeSize)
	compat := uint32(ext4ExtAttr | ext4DirIndex | ext4SparseSuper2)
	if w.journal > 0 {
		compat |= ext4HasJournal
		le.PutUint32(b[0xe0:], ext4JournalInode)
		b[0xfd] = 1 // what follows at 0x10c is a copy of the journal's inode
		copy(b[0x10c:], w.extent(w.journalBlock(), w.journal))
		le.PutUint32(b[0x10c+64:], uint32(w.journal*blockSize))
	}
	le.PutUint32(b[0x5c:], compat)
	le.PutUint32(b[0x60:], ext4FileType|ext4Extents)
	le.PutUint32(b[0x64:], ext4LargeFile|ext4HugeFile|ext4DirNlink|ext4ExtraIsize|ext4MetadataCsum)
	copy(b[0x68:], w.uuid[:])
	copy(b[0x78:0x88], WritableLabel)
	copy(b[0xec:], w.hashSeed[:])
	b[0xfc] = 1                  // half MD4
	le.PutUint32(b[0x100:], 0xc) // mount with user_xattr,acl
	le.PutUint16(b[0x15c:], 32)  // extra bytes of inodes
	le.PutUint16(b[0x15e:], 32)  // and of new ones
	le.PutUint32(b[0x160:], 0x2) // unsigned directory hash
	b[0x175] = 1                 // checksums are crc32c
	le.PutUint32(b[0x3fc:], ext4Crc(^uint32(0), b[:0x3fc]))
	return block
}

// inodeTable returns the first block of the table, which has all inodes in use.
func (w *ext4Writer) inodeTable() []byte {
	b := make([]byte, blockSize)
	put := func(n int64, mode uint16, links uint16, block, blocks int64) {
		in := b[(n-1)*ext4InodeSize : n*ext4InodeSize]
		w.putInode(in, uint32(n), mode, links, block, blocks)
	}
	put(ext4RootInode, 0o040755, 3, w.rootBlock(), 1)
	put(ext4FirstInode, 0o040700, 2, w.lostBlock(), 1)
	if w.journal > 0 {
		put(ext4JournalInode, 0o100600, 1, w.journalBlock(), w.journal)
	}
	return b
}

func (w *ext4Writer) putInode(in []byte, n uint32, mode, links uint16, block, blocks int64) {
	le := binary.LittleEndian
	le.PutUint16(in[0x00:], mode)
	le.PutUint32(in[0x04:], uint32(blocks*blockSize))
	le.PutUint16(in[0x1a:], links)
	le.PutUint32(in[0x1c:], uint32(blocks*blockSize/512))
	le.PutUint32(in[0x20:], 0x80000) // extents
	copy(in[0x28:], w.extent(block, blocks))
	le.PutUint16(in[0x80:], 32) // extra bytes in use
	sum := w.inodeCrc(n)
	sum = ext4Crc(sum, in)
	le.PutUint16(in[0x7c:], uint16(sum))
	le.PutUint16(in[0x82:], uint16(sum>>16))
}

// inodeCrc is the start of the checksums of inode n and its directory blocks;
// the generation is zero.
func (w *ext4Writer) inodeCrc(n uint32) uint32 {
	return ext4Crc(w.csumSeed, binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

// extent returns i_block with one extent.
func (w *ext4Writer) extent(block, blocks int64) []byte {
	le := binary.LittleEndian
	b := make([]byte, 60)
	le.PutUint16(b[0:], 0xf30a)
	le.PutUint16(b[2:], 1) // entries
	le.PutUint16(b[4:], 4) // room for
	le.PutUint16(b[16:], uint16(blocks))
	le.PutUint32(b[20:], uint32(block))
	return b
}

// directory returns the block of a directory with at most one entry, which is
// lost+found.
func (w *ext4Writer) directory(self, parent uint32, entry string) []byte {
	const tail = 12 // a fake entry with the checksum
	le := binary.LittleEndian
	b := make([]byte, blockSize)
	put := func(off, end int, inode uint32, name string) {
		le.PutUint32(b[off:], inode)
		le.PutUint16(b[off+4:], uint16(end-off))
		b[off+6], b[off+7] = byte(len(name)), 2 // directory
		copy(b[off+8:], name)
	}
	put(0, 12, self, ".")
	if entry == "" {
		put(12, blockSize-tail, parent, "..")
	} else {
		put(12, 24, parent, "..")
		put(24, blockSize-tail, ext4FirstInode, entry)
	}
	le.PutUint16(b[blockSize-tail+4:], tail)
	b[blockSize-tail+7] = 0xde
	le.PutUint32(b[blockSize-4:], ext4Crc(w.inodeCrc(self), b[:blockSize-tail]))
	return b
}

// journalSuper returns the superblock of an empty journal, big endian:
// https://docs.kernel.org/filesystems/ext4/journal.html#super-block
func (w *ext4Writer) journalSuper() []byte {
	be := binary.BigEndian
	b := make([]byte, blockSize)
	be.PutUint32(b[0x00:], 0xc03b3998)
	be.PutUint32(b[0x04:], 4) // superblock, version 2
	be.PutUint32(b[0x0c:], blockSize)
	be.PutUint32(b[0x10:], uint32(w.journal))
	be.PutUint32(b[0x14:], 1) // first block of the log
	be.PutUint32(b[0x18:], 1) // first transaction expected
	copy(b[0x30:], w.uuid[:])
	be.PutUint32(b[0x40:], 1) // file systems that use it
	return b
}
