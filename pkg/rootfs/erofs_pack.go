package rootfs

import (
	"fmt"
	"os"
)

// packer places inodes. What does not fit into the rest of a block starts the
// next; the rests of the last few blocks are filled by what is smaller.
type packer struct {
	next int64
	gaps [16]struct{ start, end int64 }
	turn int
}

// packerReach is how far behind the end a rest may be filled. The window that
// the image is written through must hold it.
const packerReach = 256 << 10

const inodeAlign = 1 << erofsNidShift

func (p *packer) place(size int) int64 {
	need := (int64(size) + inodeAlign - 1) &^ (inodeAlign - 1)
	for i := range p.gaps {
		if g := &p.gaps[i]; g.end-g.start >= need && p.next-g.start <= packerReach {
			g.start += need
			return g.start - need
		}
	}
	if rest := (blockSize - p.next%blockSize) % blockSize; need > rest && rest > 0 {
		p.gaps[p.turn].start, p.gaps[p.turn].end = p.next, p.next+rest
		p.turn = (p.turn + 1) % len(p.gaps)
		p.next += rest
	}
	p.next += need
	return p.next - need
}

// window is a buffer over a file for writes that are nearly in order: at most
// half of it behind the furthest.
type window struct {
	f    *os.File
	base int64
	end  int // of what has been written in buf
	buf  []byte
}

func newWindow(f *os.File, base int64) *window {
	return &window{f: f, base: base, buf: make([]byte, 1<<20)}
}

func (w *window) writeAt(b []byte, at int64) error {
	for at+int64(len(b)) > w.base+int64(len(w.buf)) {
		if err := w.slide(); err != nil {
			return err
		}
	}
	if at < w.base {
		return fmt.Errorf("write image: offset %d is behind the window at %d", at, w.base)
	}
	i := int(at - w.base)
	copy(w.buf[i:], b)
	w.end = max(w.end, i+len(b))
	return nil
}

// slide writes the first half out.
func (w *window) slide() error {
	half := len(w.buf) / 2
	if _, err := w.f.WriteAt(w.buf[:half], w.base); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	copy(w.buf, w.buf[half:])
	clear(w.buf[half:])
	w.base += int64(half)
	w.end = max(0, w.end-half)
	return nil
}

func (w *window) flush() error {
	if _, err := w.f.WriteAt(w.buf[:w.end], w.base); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}
