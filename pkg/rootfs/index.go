package rootfs

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
)

// An index file is the entries of a layer in the order of its tar, each a
// record of uvarints and length-prefixed strings, and a footer:
//
//	magic[8] entries[8] tarSize[8] dataSize[8] smallSize[8] recordsSize[8] crc32c[4] zero[4]
//
// all little endian; the checksum covers the records and the footer before it.
// It finds damage, not malice: the store belongs to its user alone.

const (
	indexMagic = "mpindex1" // the last byte is the version of the records
	footerSize = 56
)

// footer sums up an index.
type footer struct {
	entries     int
	tarSize     int64
	dataSize    int64
	smallSize   int64
	recordsSize int64
	crc         uint32
}

func (f footer) append(b []byte) []byte {
	b = append(b, indexMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.entries))
	for _, v := range []int64{f.tarSize, f.dataSize, f.smallSize, f.recordsSize} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	b = binary.LittleEndian.AppendUint32(b, f.crc)
	return binary.LittleEndian.AppendUint32(b, 0)
}

func parseFooter(b []byte) (footer, error) {
	if len(b) != footerSize || string(b[:8]) != indexMagic {
		return footer{}, fmt.Errorf("%w: not an index", ErrCorrupt)
	}
	n := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[8*i:])) }
	f := footer{entries: int(n(1)), tarSize: n(2), dataSize: n(3), smallSize: n(4), recordsSize: n(5)}
	f.crc = binary.LittleEndian.Uint32(b[48:])
	if f.entries < 0 || f.tarSize < 0 || f.dataSize < 0 || f.smallSize < 0 || f.recordsSize < 0 ||
		binary.LittleEndian.Uint32(b[52:]) != 0 || int64(f.entries) > f.recordsSize || f.dataSize%blockSize != 0 {
		return footer{}, fmt.Errorf("%w: implausible index", ErrCorrupt)
	}
	return f, nil
}

// readFooter reads the footer of the index at name without checking records.
func readFooter(name string) (footer, error) {
	f, err := os.Open(name)
	if err != nil {
		return footer{}, fmt.Errorf("open index: %w", err)
	}
	defer f.Close()
	foot, err := footerOf(f)
	if err != nil {
		return footer{}, fmt.Errorf("read index %s: %w", name, err)
	}
	return foot, nil
}

func footerOf(f *os.File) (footer, error) {
	st, err := f.Stat()
	if err != nil {
		return footer{}, err
	}
	b := make([]byte, footerSize)
	if _, err := f.ReadAt(b, max(0, st.Size()-footerSize)); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: index cut short", ErrCorrupt)
		}
		return footer{}, err
	}
	foot, err := parseFooter(b)
	if err == nil && foot.recordsSize != st.Size()-footerSize {
		err = fmt.Errorf("%w: index of %d bytes, footer says %d", ErrCorrupt, st.Size(), foot.recordsSize+footerSize)
	}
	return foot, err
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// indexWriter appends records to an index file.
type indexWriter struct {
	w    *bufio.Writer
	foot footer
	buf  []byte
	max  int64
}

func newIndexWriter(w io.Writer, max int64) *indexWriter {
	return &indexWriter{w: bufio.NewWriterSize(w, 64<<10), max: max}
}

func (w *indexWriter) add(e *entry) error {
	w.buf = appendEntry(w.buf[:0], e)
	w.foot.entries++
	w.foot.recordsSize += int64(len(w.buf))
	if w.foot.recordsSize > w.max {
		return fmt.Errorf("%w: more than %d bytes of names and attributes", ErrLimit, w.max)
	}
	return w.write(w.buf)
}

func (w *indexWriter) write(b []byte) error {
	w.foot.crc = crc32.Update(w.foot.crc, castagnoli(), b)
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// finish writes the footer.
func (w *indexWriter) finish(tarSize, dataSize, smallSize int64) error {
	w.foot.tarSize, w.foot.dataSize, w.foot.smallSize = tarSize, dataSize, smallSize
	crc := w.foot.crc
	b := w.foot.append(nil)
	w.foot.crc = crc32.Update(crc, castagnoli(), b[:48])
	if _, err := w.w.Write(w.foot.append(nil)); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

func appendEntry(b []byte, e *entry) []byte {
	b = append(b, byte(e.kind))
	b = appendString(b, e.path)
	if e.kind == kindWhiteout || e.kind == kindOpaque {
		return b
	}
	for _, v := range []uint64{uint64(e.mode), uint64(e.uid), uint64(e.gid), uint64(e.sec), uint64(e.nsec)} {
		b = binary.AppendUvarint(b, v)
	}
	switch e.kind {
	case kindFile:
		b = binary.AppendUvarint(b, uint64(e.size))
		b = append(b, byte(e.place))
		b = binary.AppendUvarint(b, uint64(e.offset))
	case kindSymlink, kindLink:
		b = appendString(b, e.target)
	case kindChar, kindBlock:
		b = binary.AppendUvarint(b, uint64(e.major))
		b = binary.AppendUvarint(b, uint64(e.minor))
	}
	return appendString(b, e.xattrs)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// index is a whole index in memory. Strings of its entries point into it.
type index struct {
	footer
	records string
}

// readIndex reads and verifies the index at name.
func readIndex(name string) (*index, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	defer f.Close()
	foot, err := footerOf(f)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", name, err)
	}
	var records strings.Builder
	records.Grow(int(foot.recordsSize))
	if _, err := io.Copy(&records, io.LimitReader(f, foot.recordsSize)); err != nil {
		return nil, fmt.Errorf("read index %s: %w", name, err)
	}
	idx := &index{footer: foot, records: records.String()}
	if err := idx.verify(); err != nil {
		return nil, fmt.Errorf("read index %s: %w", name, err)
	}
	return idx, nil
}

func (x *index) verify() error {
	foot := x.footer
	foot.crc = 0
	buf := make([]byte, 64<<10) // the whole as bytes would be a copy of it
	for rest := x.records; rest != ""; {
		n := copy(buf, rest)
		foot.crc = crc32.Update(foot.crc, castagnoli(), buf[:n])
		rest = rest[n:]
	}
	if crc32.Update(foot.crc, castagnoli(), foot.append(nil)[:48]) != x.crc {
		return fmt.Errorf("%w: wrong checksum", ErrCorrupt)
	}
	return nil
}

// each calls fn with every entry. The entry is valid during the call; its
// strings stay.
func (x *index) each(l *Limits, fn func(*entry) error) error {
	d := decoder{s: x.records}
	n := 0
	for ; d.s != ""; n++ {
		e := d.entry()
		if d.err == nil {
			d.err = e.check(x.footer, l)
		}
		if d.err != nil {
			return fmt.Errorf("%w: record %d of the index: %w", ErrCorrupt, n, d.err)
		}
		if err := fn(&e); err != nil {
			return err
		}
	}
	if n != x.entries {
		return fmt.Errorf("%w: index of %d records, footer says %d", ErrCorrupt, n, x.entries)
	}
	return nil
}
