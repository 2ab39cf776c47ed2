package rootfs

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// A frame file holds the bytes of a tar that are not contents of files:
// headers, padding, the end, whatever follows the end; and the contents of
// sparse files as the tar packs them. It is one zstd stream of records
//
//	rawSize raw... place [offset size]
//
// in uvarints: raw bytes come first, then the named range of the layer's
// contents. The last record has placeEnd.

// frameRun is how many raw bytes a record may hold.
const frameRun = 256 << 10

// frameWriter writes a frame file.
type frameWriter struct {
	z   *zstd.Encoder
	w   *bufio.Writer // batches the small records
	raw []byte
	num []byte
}

func newFrameWriter(w io.Writer) (*frameWriter, error) {
	// One goroutine and small windows: headers repeat at a short distance,
	// and many layers are added at the same time.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("write frame: %w", err)
	}
	return &frameWriter{z: z, w: bufio.NewWriterSize(z, 64<<10), raw: make([]byte, 0, frameRun)}, nil
}

// add appends bytes of the tar.
func (w *frameWriter) add(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), frameRun-len(w.raw))
		w.raw = append(w.raw, p[:n]...)
		p = p[n:]
		if len(w.raw) == frameRun {
			if err := w.record(placeNone, 0, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// record ends the run of raw bytes with a range of contents.
func (w *frameWriter) record(p place, offset, size int64) error {
	b := binary.AppendUvarint(w.num[:0], uint64(len(w.raw)))
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if _, err := w.w.Write(w.raw); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	w.raw = w.raw[:0]
	b = append(b[:0], byte(p))
	if p == placeSmall || p == placeData {
		b = binary.AppendUvarint(b, uint64(offset))
		b = binary.AppendUvarint(b, uint64(size))
	}
	w.num = b
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

func (w *frameWriter) finish() error {
	if err := w.record(placeEnd, 0, 0); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if err := w.z.Close(); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// LayerTar returns a reader of the exact bytes of the layer's tar. They are
// hashed on the way: on damage the last Read returns an error that wraps
// [ErrDigest], or an earlier one [ErrCorrupt], never io.EOF. The layer may be
// removed while the reader is open.
func (s *Store) LayerTar(diffID string) (io.ReadCloser, error) {
	h, err := parseDiffID(diffID)
	if err != nil {
		return nil, err
	}
	t := &tarReader{diffID: diffID, want: h, hash: sha256.New()}
	for _, open := range []struct {
		name string
		f    **os.File
	}{{frameFile, &t.frame}, {smallFile, &t.small}, {dataFile, &t.data}} {
		if *open.f, err = os.Open(filepath.Join(s.layerDir(h), open.name)); err != nil {
			t.Close()
			return nil, fmt.Errorf("read tar of layer %s: %w", diffID, err)
		}
	}
	t.z, err = zstd.NewReader(t.frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("read tar of layer %s: %w", diffID, err)
	}
	t.br = bufio.NewReaderSize(t.z, 64<<10)
	t.runs = [placeEnd]*runReader{placeSmall: newRunReader(t.small), placeData: newRunReader(t.data)}
	return t, nil
}

// tarReader puts a tar together from the frame and the contents.
type tarReader struct {
	diffID, want       string
	hash               hash.Hash
	frame, small, data *os.File
	z                  *zstd.Decoder
	br                 *bufio.Reader
	runs               [placeEnd]*runReader

	cur   io.Reader // what is being read, left bytes of it
	left  int64
	inRaw bool // the place of the record follows
	err   error
}

func (t *tarReader) Read(p []byte) (int, error) {
	for t.left == 0 && t.err == nil {
		if t.err = t.next(); t.err != nil && !errors.Is(t.err, io.EOF) {
			t.err = fmt.Errorf("read tar of layer %s: %w", t.diffID, t.err)
		}
	}
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.cur.Read(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	t.hash.Write(p[:n])
	if err != nil && t.left > 0 {
		t.err = fmt.Errorf("read tar of layer %s: %w: %w", t.diffID, ErrCorrupt, noEOF(err))
		return n, t.err
	}
	return n, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next moves to the next part of a record; io.EOF after the last.
func (t *tarReader) next() error {
	if !t.inRaw {
		n, err := t.uvarint()
		if err == nil && n > frameRun {
			err = fmt.Errorf("%w: record of %d bytes", ErrCorrupt, n)
		}
		t.cur, t.left, t.inRaw = t.br, n, true
		return err
	}
	t.inRaw = false
	b, err := t.br.ReadByte()
	if err != nil {
		return fmt.Errorf("%w: frame: %w", ErrCorrupt, noEOF(err))
	}
	switch p := place(b); p {
	case placeNone:
		return nil
	case placeSmall, placeData:
		return t.content(t.runs[p])
	case placeEnd:
		if got := hex.EncodeToString(t.hash.Sum(nil)); got != t.want {
			return fmt.Errorf("%w: have sha256:%s", ErrDigest, got)
		}
		return io.EOF
	}
	return fmt.Errorf("%w: frame record with place %d", ErrCorrupt, b)
}

func (t *tarReader) content(r *runReader) error {
	off, err := t.uvarint()
	if err != nil {
		return err
	}
	size, err := t.uvarint()
	if err != nil {
		return err
	}
	if st, err := r.f.Stat(); err != nil || off > st.Size() || size > st.Size()-off {
		return fmt.Errorf("%w: frame: contents of %d bytes at %d", ErrCorrupt, size, off)
	}
	t.cur, t.left = r, size
	return r.seek(off)
}

func (t *tarReader) uvarint() (int64, error) {
	n, err := binary.ReadUvarint(t.br)
	if err == nil && n > 1<<62 {
		err = errShort
	}
	if err != nil {
		return 0, fmt.Errorf("%w: frame: %w", ErrCorrupt, noEOF(err))
	}
	return int64(n), nil
}

// Close releases the files.
func (t *tarReader) Close() error {
	if t.z != nil {
		t.z.Close()
	}
	for _, f := range []*os.File{t.frame, t.small, t.data} {
		if f != nil {
			f.Close()
		}
	}
	t.err = os.ErrClosed
	t.left = 0
	return nil
}
