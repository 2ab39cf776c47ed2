package rootfs

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
)

// WritableLabel is the label of the file systems that CreateWritable makes.
const WritableLabel = "micropod-rw"

// minWritable is the smallest writable disk.
const minWritable = 16 << 20

// CreateWritable makes a sparse file at path, which must not exist, with an
// empty ext4 file system of at most size bytes, which is rounded down to
// blocks. With a journal the file system survives a power cut of the guest; a
// disk that is thrown away needs none. The file takes about 50 KiB.
//
// The structures are written here: no mke2fs is needed at run time, and no
// template, whose geometry would be that of one size. It is the ext4 that
// mke2fs makes today (extents, metadata_csum, dir_index) less what an image
// file has no use for: backup superblocks, reserved descriptors for growth,
// and blocks reserved for root. Two choices keep the file small for good.
// Every group but the first and last is uninitialised, which writes nothing;
// and every inode table is marked as zeroed, which in a new sparse file it is,
// because the kernel would otherwise write all of them out as zeros after the
// first mount (ext4lazyinit): 160 MB for 10 GiB.
func CreateWritable(path string, size int64, journal bool) (err error) {
	g, err := newGeometry(size, journal)
	if err != nil {
		return fmt.Errorf("create writable disk: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create writable disk: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(path)
			err = fmt.Errorf("create writable disk: %w", err)
		}
	}()
	if err := f.Truncate(size &^ (blockSize - 1)); err != nil {
		return err
	}
	fs := &ext4Writer{geometry: g, f: f}
	rand.Read(fs.uuid[:]) // never fails
	rand.Read(fs.hashSeed[:])
	fs.csumSeed = ext4Crc(^uint32(0), fs.uuid[:])
	return fs.write()
}

const (
	ext4GroupBlocks   = 8 * blockSize // what one block of bitmap covers
	ext4InodeSize     = 256
	ext4InodesPerBlk  = blockSize / ext4InodeSize
	ext4GroupInodes   = 8192 // one per 16 KiB, as mke2fs
	ext4DescSize      = 32
	ext4RootInode     = 2
	ext4JournalInode  = 8
	ext4FirstInode    = 11 // lost+found; 1 to 10 are reserved
	ext4MaxBlocks     = 1<<32 - 1
	ext4MinLastGroup  = 64 // blocks a last group must have beyond its own structures
	ext4JournalMin    = 1024
	ext4JournalMax    = 8192
	ext4JournalDivide = 64
)

// geometry is where things are. All structures but those of a group itself are
// in group 0: superblock, descriptors, bitmaps, inode table, root directory,
// lost+found, journal.
type geometry struct {
	blocks      int64 // of the file system
	groups      int64
	groupInodes int64
	descBlocks  int64
	journal     int64 // blocks
}

func newGeometry(size int64, journal bool) (g geometry, err error) {
	if size < minWritable || size/blockSize > ext4MaxBlocks {
		return g, fmt.Errorf("size %d: want %d to %d bytes", size, minWritable, int64(ext4MaxBlocks)*blockSize)
	}
	g.blocks = size / blockSize
	g.groupInodes = min(ext4GroupInodes, g.blocks/4&^(ext4InodesPerBlk-1))
	// A last group too small to be of use is left out.
	if last := g.blocks % ext4GroupBlocks; last > 0 && g.blocks > ext4GroupBlocks && last < g.overhead()+ext4MinLastGroup {
		g.blocks -= last
	}
	g.groups = (g.blocks + ext4GroupBlocks - 1) / ext4GroupBlocks
	g.descBlocks = (g.groups*ext4DescSize + blockSize - 1) / blockSize
	if journal {
		g.journal = min(max(g.blocks/ext4JournalDivide, ext4JournalMin), ext4JournalMax)
	}
	return g, nil
}

func (g *geometry) tableBlocks() int64 { return g.groupInodes / ext4InodesPerBlk }

// overhead is the blocks of a group's own structures.
func (g *geometry) overhead() int64 { return 2 + g.tableBlocks() }

// bitmap returns the block bitmap of a group; the inode bitmap and the inode
// table follow.
func (g *geometry) bitmap(group int64) int64 {
	if group == 0 {
		return 1 + g.descBlocks
	}
	return group * ext4GroupBlocks
}

func (g *geometry) groupBlocks(group int64) int64 {
	return min(ext4GroupBlocks, g.blocks-group*ext4GroupBlocks)
}

func (g *geometry) rootBlock() int64    { return g.bitmap(0) + g.overhead() }
func (g *geometry) lostBlock() int64    { return g.rootBlock() + 1 }
func (g *geometry) journalBlock() int64 { return g.rootBlock() + 2 }

// used is the blocks in use of a group, which are its first.
func (g *geometry) used(group int64) int64 {
	if group == 0 {
		return g.journalBlock() + g.journal
	}
	return g.overhead()
}

func (g *geometry) freeBlocks() int64 {
	return g.blocks - g.used(0) - (g.groups-1)*g.overhead()
}

// ext4Crc is crc32c as the kernel computes it: no inversion at either end.
func ext4Crc(seed uint32, b []byte) uint32 {
	return ^crc32.Update(^seed, castagnoli(), b)
}

// ext4Writer writes the structures. Offsets below are those of
// https://docs.kernel.org/filesystems/ext4/.
type ext4Writer struct {
	geometry
	f        *os.File
	uuid     [16]byte
	hashSeed [16]byte
	csumSeed uint32
}

func (w *ext4Writer) write() error {
	parts := []struct {
		block int64
		data  []byte
	}{
		{1, w.descriptors()},
		{w.bitmap(0), w.blockBitmap(0)},
		{w.bitmap(0) + 1, w.inodeBitmap()},
		{w.bitmap(0) + 2, w.inodeTable()},
		{w.rootBlock(), w.directory(ext4RootInode, ext4RootInode, "lost+found")},
		{w.lostBlock(), w.directory(ext4FirstInode, ext4RootInode, "")},
		{w.bitmap(w.groups - 1), w.blockBitmap(w.groups - 1)},
		{0, w.superblock()},
	}
	for _, p := range parts {
		if _, err := w.f.WriteAt(p.data, p.block*blockSize); err != nil {
			return err
		}
	}
	if w.journal == 0 {
		return nil
	}
	_, err := w.f.WriteAt(w.journalSuper(), w.journalBlock()*blockSize)
	return err
}

const (
	ext4BlockUninit = 0x2
	ext4InodeUninit = 0x1
	ext4InodeZeroed = 0x4
)

func (w *ext4Writer) descriptors() []byte {
	le := binary.LittleEndian
	all := make([]byte, w.descBlocks*blockSize)
	for g := range w.groups {
		d := all[g*ext4DescSize : (g+1)*ext4DescSize]
		le.PutUint32(d[0x00:], uint32(w.bitmap(g)))
		le.PutUint32(d[0x04:], uint32(w.bitmap(g)+1))
		le.PutUint32(d[0x08:], uint32(w.bitmap(g)+2))
		le.PutUint16(d[0x0c:], uint16(w.groupBlocks(g)-w.used(g)))
		flags, free := uint16(ext4InodeUninit|ext4InodeZeroed), w.groupInodes
		switch {
		case g == 0:
			flags, free = ext4InodeZeroed, w.groupInodes-ext4FirstInode
			le.PutUint16(d[0x10:], 2) // directories
			le.PutUint16(d[0x1a:], uint16(ext4Crc(w.csumSeed, w.inodeBitmap()[:w.groupInodes/8])))
			fallthrough
		case g == w.groups-1: // its bitmap has padding at the end
			le.PutUint16(d[0x18:], uint16(ext4Crc(w.csumSeed, w.blockBitmap(g))))
		default:
			flags |= ext4BlockUninit
		}
		le.PutUint16(d[0x0e:], uint16(free))
		le.PutUint16(d[0x12:], flags)
		le.PutUint16(d[0x1c:], uint16(free)) // unused at the end of the table
		sum := ext4Crc(w.csumSeed, le.AppendUint32(nil, uint32(g)))
		le.PutUint16(d[0x1e:], uint16(ext4Crc(sum, d)))
	}
	return all
}

func (w *ext4Writer) blockBitmap(g int64) []byte {
	b := make([]byte, blockSize)
	setBits(b, 0, w.used(g))
	setBits(b, w.groupBlocks(g), ext4GroupBlocks)
	return b
}

func (w *ext4Writer) inodeBitmap() []byte {
	b := make([]byte, blockSize)
	setBits(b, 0, ext4FirstInode)
	setBits(b, w.groupInodes, ext4GroupBlocks)
	return b
}

func setBits(b []byte, from, to int64) {
	for i := from; i < to; {
		if i%8 == 0 && to-i >= 8 { // most of them
			b[i/8] = 0xff
			i += 8
			continue
		}
		b[i/8] |= 1 << (i % 8)
		i++
	}
}
