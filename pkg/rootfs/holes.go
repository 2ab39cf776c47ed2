package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// holeWriter writes a new file and leaves blocks of zeros past its end out:
// tar2ext4 knows no holes, and a sparse file of a layer must not fill the host.
type holeWriter struct {
	f    *os.File
	pos  int64
	high int64 // end of what has been written or left out
}

func (w *holeWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		end, zero := n+w.run(p[n:]), false
		if w.pos >= w.high && end-n == blockSize {
			zero = isZero(p[n:end])
		}
		if !zero {
			if _, err := w.f.WriteAt(p[n:end], w.pos); err != nil {
				return n, fmt.Errorf("write image: %w", err)
			}
		}
		w.pos += int64(end - n)
		w.high = max(w.high, w.pos)
		n = end
	}
	return n, nil
}

// run is how much of p goes in one piece: a whole block of zeros, or all up to
// the next.
func (w *holeWriter) run(p []byte) int {
	n := min(int(-w.pos&(blockSize-1)), len(p))
	if n == 0 && len(p) >= blockSize && isZero(p[:blockSize]) {
		return blockSize
	}
	for n+blockSize <= len(p) && !isZero(p[n:n+blockSize]) {
		n += blockSize
	}
	if n == 0 || len(p)-n < blockSize {
		return len(p)
	}
	return n
}

func (w *holeWriter) Read(p []byte) (int, error) {
	n, err := w.f.ReadAt(p, w.pos)
	w.pos += int64(n)
	return n, err
}

func (w *holeWriter) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += w.pos
	case io.SeekEnd:
		off += w.high
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	w.pos = off
	return off, nil
}

// finish gives the file its size.
func (w *holeWriter) finish() error {
	if err := w.f.Truncate(max(w.high, w.pos)); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}
