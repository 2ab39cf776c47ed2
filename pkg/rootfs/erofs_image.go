package rootfs

import (
	"context"
	"fmt"
	"os"
)

// erofsWriter writes the metadata image of a sealed tree:
//
//	block 0      superblock, device table
//	block 1...   inodes with their xattrs and small contents
//	             blocks of big directories and long symlinks
//	             data of the layers that are no device of their own
//
// Inodes are in the order in which the layers have them, so that the contents
// of small files are read from start to end.
type erofsWriter struct {
	t      *tree
	layers []imageLayer // of tree layer i+1
	out    *os.File

	packer packer
	blocks map[uint32]uint32 // inode -> its first block, counted from blockBase
	nBlock uint32
	base   int64 // where these blocks start

	dents []dirent
	buf   []byte
}

// imageLayer is where a layer's contents are read from and are found in the
// image.
type imageLayer struct {
	small  *runReader
	device uint16 // of the device table, from 1; 0 in the image itself
	data   string // file to pack, when device is 0
	size   int64  // of data
	base   uint32 // block of the image where data starts
}

// shape is how an inode is stored.
type shape struct {
	layout byte
	head   int   // inode, xattrs, chunk entry
	inline int   // contents after the head
	size   int64 // of the file
}

// shapeOf decides how an inode is stored. Inline contents may not cross the
// end of a block, and for fast symlinks the kernel counts from the inode: so
// an inode with inline contents is within a block as a whole.
func (w *erofsWriter) shapeOf(in *inode) shape {
	s := shape{layout: erofsLayoutPlain, head: erofsInodeSize + erofsXattrSize(in.xattrs)}
	switch in.kind {
	case kindDir:
		w.dents = w.t.dirents(in.node, w.dents[:0])
		s.size = dirSize(w.dents)
	case kindSymlink:
		s.size = int64(len(in.text))
	case kindFile:
		s.size = in.size
		if in.place == placeData {
			s.layout, s.head = erofsLayoutChunk, (s.head+7)&^7+8
			return s
		}
	}
	if s.size > 0 && int64(s.head)+s.size <= blockSize {
		s.layout, s.inline = erofsLayoutInline, int(s.size)
	}
	return s
}

// layout gives every inode its address.
func (w *erofsWriter) layout() {
	w.packer = packer{next: erofsInodeStart}
	w.blocks = map[uint32]uint32{}
	for i := range w.t.inodes {
		in := &w.t.inodes[i]
		if in.nlink == 0 {
			continue
		}
		s := w.shapeOf(in)
		in.address = w.packer.place(s.head + s.inline)
		if s.layout == erofsLayoutPlain && s.size > 0 {
			w.blocks[uint32(i)] = w.nBlock
			w.nBlock += uint32((s.size + blockSize - 1) / blockSize)
		}
	}
	w.base = (w.packer.next + blockSize - 1) &^ (blockSize - 1)
}

// write writes the image and returns its size.
func (w *erofsWriter) write(ctx context.Context, super erofsSuper) (int64, error) {
	w.layout()
	end := w.base + int64(w.nBlock)*blockSize
	packed := map[string]uint32{} // an image may have the same layer twice
	for i := range w.layers {
		l := &w.layers[i]
		if l.device != 0 || l.size == 0 {
			continue
		}
		if base, ok := packed[l.data]; ok {
			l.base, l.size = base, 0
			continue
		}
		l.base = uint32(end / blockSize)
		packed[l.data] = l.base
		end += l.size
	}
	if end/blockSize >= erofsNoBlock {
		return 0, fmt.Errorf("%w: image of %d bytes", ErrLimit, end)
	}
	super.blocks = uint32(end / blockSize)
	if err := w.out.Truncate(end); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	if err := w.writeInodes(ctx); err != nil {
		return 0, err
	}
	if err := w.writeBlocks(ctx); err != nil {
		return 0, err
	}
	for _, l := range w.layers {
		if l.device == 0 && l.size > 0 {
			if err := copySparse(ctx, w.out, int64(l.base)*blockSize, l.data, l.size); err != nil {
				return 0, err
			}
		}
	}
	if _, err := w.out.WriteAt(super.encode(), 0); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	return end, nil
}

func (w *erofsWriter) writeInodes(ctx context.Context) error {
	out := newWindow(w.out, erofsInodeStart)
	number := uint32(0)
	for i := range w.t.inodes {
		in := &w.t.inodes[i]
		if in.nlink == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		number++
		b, err := w.appendInode(w.buf[:0], uint32(i), number)
		if err != nil {
			return err
		}
		w.buf = b
		if err := out.writeAt(b, in.address); err != nil {
			return err
		}
	}
	return out.flush()
}

// appendInode appends an inode with all that follows it in place.
func (w *erofsWriter) appendInode(b []byte, i, number uint32) ([]byte, error) {
	in := &w.t.inodes[i]
	s := w.shapeOf(in)
	n := erofsInode{
		layout: s.layout, xattrs: erofsXattrSize(in.xattrs), mode: modeType(in.kind) | in.mode,
		size: s.size, data: erofsNoBlock, number: number, inode: in,
	}
	switch {
	case in.kind == kindChar || in.kind == kindBlock:
		n.data = in.dev
	case in.kind == kindFifo:
		n.data = 0
	case s.layout == erofsLayoutChunk:
		n.data = erofsChunkIndexes | erofsChunkBits(s.size)
	case s.layout == erofsLayoutPlain && s.size > 0:
		n.data = uint32(w.base/blockSize) + w.blocks[i]
	}
	b = appendErofsXattrs(n.encode(b), in.xattrs)
	if s.layout == erofsLayoutChunk {
		return w.appendChunk(b, in), nil
	}
	if s.layout == erofsLayoutInline {
		return w.appendContents(b, in)
	}
	return b, nil
}

// appendChunk appends the one chunk entry of a file in a data blob.
func (w *erofsWriter) appendChunk(b []byte, in *inode) []byte {
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	l := w.layers[in.layer-1]
	block := uint32(in.offset/blockSize) + l.base
	return append(b, 0, 0, byte(l.device), byte(l.device>>8),
		byte(block), byte(block>>8), byte(block>>16), byte(block>>24))
}

// appendContents appends contents that are in the image proper. The entries of
// a directory are those that shapeOf has collected.
func (w *erofsWriter) appendContents(b []byte, in *inode) ([]byte, error) {
	switch in.kind {
	case kindDir:
		return w.t.appendDir(b, w.dents), nil
	case kindSymlink:
		return append(b, in.text...), nil
	}
	start := len(b)
	b = append(b, make([]byte, in.size)...)
	return b, w.layers[in.layer-1].small.readAt(b[start:], in.offset)
}

// writeBlocks writes the contents that have blocks of their own.
func (w *erofsWriter) writeBlocks(ctx context.Context) error {
	out := newWindow(w.out, w.base)
	for i := range w.t.inodes {
		first, ok := w.blocks[uint32(i)]
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		in := &w.t.inodes[i]
		w.shapeOf(in)
		b, err := w.appendContents(w.buf[:0], in)
		if err != nil {
			return err
		}
		w.buf = b
		for at := w.base + int64(first)*blockSize; len(b) > 0; {
			n := min(len(b), blockSize)
			if err := out.writeAt(b[:n], at); err != nil {
				return err
			}
			b, at = b[n:], at+int64(n)
		}
	}
	return out.flush()
}
