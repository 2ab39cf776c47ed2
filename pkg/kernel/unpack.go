package kernel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/xi2/xz"
)

const (
	lz4LegacyMagic = 0x184c2102
	// Blocks of the legacy frame unpack to 8 MiB at most,
	// https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md#legacy-frame
	lz4LegacyBlock = 8 << 20
	// maxDict is the largest dictionary or window that the kernel's build
	// uses: scripts/xz_wrap.sh asks for 128 MiB, zstd --ultra -22 too.
	maxDict = 128 << 20
)

// unpack writes the uncompressed content of a bzImage's payload to w and
// returns its size, which is at most limit.
//
// The last four bytes of a payload are the uncompressed size: gzip ends with
// it anyway, for the other formats the kernel's build appends it. It is checked
// against what comes out.
func unpack(w io.Writer, payload *io.SectionReader, limit int64) (int64, error) {
	n := payload.Size()
	if n < 8 {
		return 0, fmt.Errorf("payload of %d bytes: %w", n, ErrFormat)
	}
	var tail [4]byte
	if _, err := payload.ReadAt(tail[:], n-4); err != nil {
		return 0, fmt.Errorf("read payload size: %w", err)
	}
	want := int64(binary.LittleEndian.Uint32(tail[:]))
	if want > limit {
		return 0, fmt.Errorf("payload unpacks to %d bytes, more than %d: %w", want, limit, ErrFormat)
	}
	body := io.NewSectionReader(payload, 0, n-4)
	var magic [6]byte
	if _, err := body.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read payload: %w", err)
	}
	// A gzip reader wants its trailer, a fraction of which was cut off above.
	if isGzip(magic[:]) {
		body = io.NewSectionReader(payload, 0, n)
	}
	r, err := decompressor(magic[:], bufio.NewReaderSize(body, 1<<16), maxDict)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	got, err := io.Copy(w, io.LimitReader(r, want+1))
	if err != nil {
		return got, fmt.Errorf("unpack payload: %w", err)
	}
	if got != want {
		return got, fmt.Errorf("payload unpacks to %d bytes or more instead of %d: %w", got, want, ErrFormat)
	}
	return got, nil
}

func isGzip(magic []byte) bool { return bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) }

// decompressor chooses by the first bytes of r, of which magic is a copy.
// Memory is bounded by maxDict and a constant.
func decompressor(magic []byte, r io.Reader, maxDict uint32) (io.ReadCloser, error) {
	switch {
	case isGzip(magic):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		z.Multistream(false)
		return z, nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		// This reader is a port of the kernel's own and knows the x86 filter
		// that kernels are packed with.
		z, err := xz.NewReader(r, maxDict)
		if err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
		z.Multistream(false)
		return io.NopCloser(z), nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(maxDict)))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(magic, []byte{0x02, 0x21, 0x4c, 0x18}):
		return io.NopCloser(&lz4Legacy{r: r}), nil
	}
	for _, c := range []struct{ magic, name string }{
		{"\x5d\x00\x00", "lzma"}, {"BZh", "bzip2"}, {"\x89LZO", "lzo"},
	} {
		if bytes.HasPrefix(magic, []byte(c.magic)) {
			return nil, fmt.Errorf("%s compression is not supported (use lz4, gzip, xz or zstd): %w", c.name, ErrFormat)
		}
	}
	return nil, fmt.Errorf("unknown compression %x: %w", magic, ErrFormat)
}

// lz4Legacy reads the frames that lz4 -l writes: a magic number, then blocks
// that each begin with their compressed size.
type lz4Legacy struct {
	r        io.Reader
	src, dst []byte
	out      []byte // what of dst is still to be read
}

func (l *lz4Legacy) Read(p []byte) (int, error) {
	for len(l.out) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.out)
	l.out = l.out[n:]
	return n, nil
}

func (l *lz4Legacy) next() error {
	var b [4]byte
	if _, err := io.ReadFull(l.r, b[:]); err != nil {
		return err // a clean io.EOF ends the stream
	}
	n := binary.LittleEndian.Uint32(b[:])
	if n == lz4LegacyMagic { // frames may follow each other
		return nil
	}
	if l.dst == nil {
		l.src = make([]byte, lz4.CompressBlockBound(lz4LegacyBlock))
		l.dst = make([]byte, lz4LegacyBlock)
	}
	if n == 0 || int64(n) > int64(len(l.src)) {
		return fmt.Errorf("lz4: block of %d bytes: %w", n, ErrFormat)
	}
	if _, err := io.ReadFull(l.r, l.src[:n]); err != nil {
		return fmt.Errorf("lz4: %w", io.ErrUnexpectedEOF)
	}
	m, err := lz4.UncompressBlock(l.src[:n], l.dst)
	if err != nil {
		return fmt.Errorf("lz4: %w", err)
	}
	l.out = l.dst[:m]
	return nil
}
