package rootfs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	blobBuffer = 1 << 20
	// blobWriteback is how many bytes are written before the kernel is asked
	// to start on them, so that the fsync at the end finds little left to do.
	blobWriteback = 16 << 20
)

// blobWriter writes the data file of a layer: the contents of each file start
// on a block, and a block of zeros is a hole, whether the tar had it as a hole
// or as zeros.
type blobWriter struct {
	f     *os.File
	buf   []byte // buf[:n] belongs at offset base; len is a multiple of blockSize
	n     int
	base  int64
	dirty int64 // start of what writeback has not been told of
}

func newBlobWriter(f *os.File) *blobWriter {
	return &blobWriter{f: f, buf: make([]byte, blobBuffer)}
}

// offset is where the next byte goes.
func (w *blobWriter) offset() int64 { return w.base + int64(w.n) }

func (w *blobWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if w.n == len(w.buf) {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
		n := copy(w.buf[w.n:], p)
		w.n += n
		p = p[n:]
	}
	return written, nil
}

// hole is Write of n zeros, n at most blobBuffer, at the cost of a few.
func (w *blobWriter) hole(n int) error {
	head := min(n, -w.n&(blockSize-1))
	if _, err := w.Write(make([]byte, head)); err != nil {
		return err
	}
	if n -= head; n >= blockSize {
		if err := w.flush(); err != nil {
			return err
		}
		w.base += int64(n &^ (blockSize - 1))
		n &= blockSize - 1
	}
	_, err := w.Write(make([]byte, n))
	return err
}

// align pads with zeros to the next block.
func (w *blobWriter) align() {
	end := (w.n + blockSize - 1) &^ (blockSize - 1)
	clear(w.buf[w.n:end])
	w.n = end
}

// isZero reports whether a block is all zeros: its first byte is, and every
// byte equals the one before it.
func isZero(block []byte) bool {
	return block[0] == 0 && bytes.Equal(block[1:], block[:len(block)-1])
}

// flush writes the blocks of buf, which is padded, that hold anything.
func (w *blobWriter) flush() error {
	for start := 0; start < w.n; {
		for start < w.n && isZero(w.buf[start:start+blockSize]) {
			start += blockSize
		}
		end := start
		for end < w.n && !isZero(w.buf[end:end+blockSize]) {
			end += blockSize
		}
		if start == end {
			break
		}
		if _, err := w.f.WriteAt(w.buf[start:end], w.base+int64(start)); err != nil {
			return fmt.Errorf("write layer data: %w", err)
		}
		start = end
	}
	w.base += int64(w.n)
	w.n = 0
	if w.base-w.dirty >= blobWriteback {
		// Advice only: a file system that cannot is no error.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.dirty, w.base-w.dirty, unix.SYNC_FILE_RANGE_WRITE)
		w.dirty = w.base
	}
	return nil
}

// finish writes what is left and returns the size of the file.
func (w *blobWriter) finish() (int64, error) {
	w.align()
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.f.Truncate(w.base); err != nil {
		return 0, fmt.Errorf("write layer data: %w", err)
	}
	return w.base, nil
}

// runReader reads ranges of a file that mostly follow one another.
type runReader struct {
	f   *os.File
	br  *bufio.Reader
	pos int64
}

func newRunReader(f *os.File) *runReader {
	return &runReader{f: f, br: bufio.NewReaderSize(f, 32<<10)}
}

// seek moves to off, forwards within the buffer where possible.
func (r *runReader) seek(off int64) error {
	if skip := off - r.pos; skip >= 0 && skip <= int64(r.br.Buffered()) {
		r.pos = off
		_, err := r.br.Discard(int(skip))
		return err
	}
	if _, err := r.f.Seek(off, io.SeekStart); err != nil {
		return fmt.Errorf("seek: %w", err)
	}
	r.br.Reset(r.f)
	r.pos = off
	return nil
}

func (r *runReader) Read(p []byte) (int, error) {
	n, err := r.br.Read(p)
	r.pos += int64(n)
	return n, err
}

// readAt fills p from off. A file that ends before is damage.
func (r *runReader) readAt(p []byte, off int64) error {
	if err := r.seek(off); err != nil {
		return err
	}
	n, err := io.ReadFull(r.br, p)
	r.pos += int64(n)
	if err != nil {
		return fmt.Errorf("%w: read %s at %d: %w", ErrCorrupt, r.f.Name(), off, err)
	}
	return nil
}
