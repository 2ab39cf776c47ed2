package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// Limits on layers. The ratio is that of a tar of zeros under gzip, with room
// for small layers; a layer beyond it is a bomb, not software.
const (
	maxLayerBytes = 64 << 30
	maxRatio      = 200
	ratioFree     = 1 << 30
	// maxZstdWindow is what the zstd program accepts without --long.
	maxZstdWindow = 128 << 20
	// maxXZDict is what xz -9 uses.
	maxXZDict = 64 << 20
)

// layerBlob is one layer as its source has it.
type layerBlob struct {
	diffID string
	// digest and size are of the bytes that open gives; "" and -1 when the
	// source does not say (docker archives).
	digest string
	size   int64
	open   func(ctx context.Context) (io.ReadCloser, error)
}

// id is how progress names the layer.
func (l *layerBlob) id() string {
	if l.digest != "" {
		return shortID(l.digest)
	}
	return shortID(l.diffID)
}

// layerReader gives the uncompressed tar stream of a layer. It opens the layer
// at the first Read, so that a LayerStore which has it by now costs nothing,
// and it says io.EOF only after the compressed bytes were read to their end and
// had the promised size and digest.
type layerReader struct {
	ctx   context.Context
	layer *layerBlob
	moved func(n int64) // told how many compressed bytes were read so far

	raw    io.ReadCloser
	hashed *hashReader
	plain  io.Reader
	free   func()
	out    int64
	err    error
}

func (l *layerReader) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if l.plain == nil {
		if l.err = l.start(); l.err != nil {
			return 0, l.err
		}
	}
	n, err := l.plain.Read(p)
	l.out += int64(n)
	switch {
	case err == io.EOF:
		err = l.verify()
	case err == nil:
		err = l.checkExpansion()
	case l.hashed.err != nil:
		err = l.hashed.err // the source broke, not the compression
	default:
		err = fmt.Errorf("%w: decompress: %w", ErrInvalid, err)
	}
	l.err = err
	return n, err
}

func (l *layerReader) start() error {
	raw, err := l.layer.open(l.ctx)
	if err != nil {
		return err
	}
	l.raw = raw
	l.hashed = &hashReader{ctx: l.ctx, r: raw, sum: sha256.New(), most: maxLayerBytes, moved: l.moved}
	if l.layer.size >= 0 {
		l.hashed.most = l.layer.size
	}
	l.plain, l.free, err = decompress(bufio.NewReaderSize(l.hashed, 256<<10))
	return err
}

// checkExpansion stops a bomb while it expands, not after.
func (l *layerReader) checkExpansion() error {
	if l.out > maxLayerBytes {
		return fmt.Errorf("%w: more than %d bytes uncompressed", ErrInvalid, int64(maxLayerBytes))
	}
	return checkRatio(l.hashed.n, l.out)
}

func checkRatio(in, out int64) error {
	if out > ratioFree && out-ratioFree > maxRatio*in {
		return fmt.Errorf("%w: %d bytes expand to more than %d", ErrInvalid, in, out)
	}
	return nil
}

// boundReader ends what expands from too little.
type boundReader struct {
	plain io.Reader
	from  *ctxReader
	out   int64
}

func (b *boundReader) Read(p []byte) (int, error) {
	n, err := b.plain.Read(p)
	b.out += int64(n)
	if bomb := checkRatio(b.from.n, b.out); bomb != nil {
		return n, bomb
	}
	return n, err
}

// verify reads what the decompressor left over and compares size and digest;
// io.EOF means that all is well.
func (l *layerReader) verify() error {
	if _, err := io.Copy(io.Discard, l.hashed); err != nil {
		return err
	}
	if l.layer.size >= 0 && l.hashed.n != l.layer.size {
		return fmt.Errorf("%w: %d bytes came, the manifest says %d", ErrInvalid, l.hashed.n, l.layer.size)
	}
	if got := l.hashed.digest(); l.layer.digest != "" && got != l.layer.digest {
		return fmt.Errorf("%w: wrong content: digest is %s, the manifest says %s", ErrInvalid, got, l.layer.digest)
	}
	return io.EOF
}

// Close frees what Read opened. It is called once, after the last Read.
func (l *layerReader) Close() error {
	if l.free != nil {
		l.free()
	}
	if l.raw != nil {
		return l.raw.Close()
	}
	return nil
}

// hashReader counts, bounds and hashes what is read through it.
type hashReader struct {
	ctx   context.Context
	r     io.Reader
	sum   hash.Hash
	n     int64
	most  int64
	moved func(n int64)
	err   error // of the source, not io.EOF
}

func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.read(p)
	if err != nil && err != io.EOF {
		h.err = err
	}
	return n, err
}

func (h *hashReader) read(p []byte) (int, error) {
	if h.ctx.Err() != nil {
		return 0, context.Cause(h.ctx)
	}
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	h.n += int64(n)
	if h.n > h.most {
		return 0, fmt.Errorf("%w: more than the %d bytes that the manifest says", ErrInvalid, h.most)
	}
	if n > 0 && h.moved != nil {
		h.moved(h.n)
	}
	return n, err
}

func (h *hashReader) digest() string {
	return digestPrefix + hex.EncodeToString(h.sum.Sum(nil))
}

// decompress looks at the first bytes, as docker does, because media types are
// often wrong. free must be called after the last Read.
func decompress(r *bufio.Reader) (plain io.Reader, free func(), err error) {
	head, err := r.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: decompress: %w", ErrInvalid, err)
		}
		return z, func() { z.Close() }, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippableFrame(head):
		// One goroutine's worth of work, none in the background: nothing to
		// leak, and layers run in parallel already.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: decompress: %w", ErrInvalid, err)
		}
		return z, z.Close, nil
	case bytes.HasPrefix(head, []byte("BZh")), bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, nil, fmt.Errorf("%w: compressed by bzip2 or xz; gzip and zstd are supported", ErrInvalid)
	}
	return r, func() {}, nil
}

// isSkippableFrame knows the zstd frames that pzstd and zstd:chunked put first.
func isSkippableFrame(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18})
}

// decompressFile is decompress for files of people, which come in two more
// formats than layers do.
func decompressFile(r *bufio.Reader) (plain io.Reader, free func(), err error) {
	head, err := r.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2.NewReader(r), func() {}, nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		z, err := xz.NewReader(r, maxXZDict)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: decompress: %w", ErrInvalid, err)
		}
		return z, func() {}, nil
	}
	return decompress(r)
}

// Decompress gives the plain bytes of a file of the user's, which may be
// compressed by gzip, zstd, bzip2 or xz.
func Decompress(r io.Reader) (io.Reader, error) {
	plain, _, err := decompressFile(bufio.NewReader(r))
	return plain, err
}
