package rootfs

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// AddLayer reads one uncompressed layer tar from r to its very end, checks it
// against diffID and adds the layer, atomically and durably. A layer that is
// there already is returned without reading r. One writer at a time adds a
// diffID, across processes; the others wait and find it done. After an error
// nothing is left behind. r is read up to half a MiB ahead, in a goroutine that
// has ended when AddLayer returns; so when ctx ends, AddLayer returns as soon as
// the Read in progress does.
func (s *Store) AddLayer(ctx context.Context, diffID string, r io.Reader) (Layer, error) {
	h, err := parseDiffID(diffID)
	if err != nil {
		return Layer{}, err
	}
	lock, err := s.lock(ctx, h)
	if err != nil {
		return Layer{}, err
	}
	defer lock.Close()
	if s.HasLayer(diffID) {
		return s.Layer(diffID)
	}
	if _, err := s.sweep(); err != nil {
		s.log.Warn("sweep rootfs store", "error", err)
	}
	if err := s.buildLayer(ctx, h, r); err != nil {
		os.Remove(lock.Name()) // while it is held: see lock
		return Layer{}, fmt.Errorf("add layer %s: %w", diffID, err)
	}
	return s.Layer(diffID)
}

func (s *Store) buildLayer(ctx context.Context, hex string, r io.Reader) error {
	work, err := s.newWorkDir()
	if err != nil {
		return err
	}
	defer work.discard()
	ahead := newReadAhead(r)
	defer ahead.close()
	w, err := s.newLayerWriter(ctx, work, ahead)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.readTar(); err != nil {
		return err
	}
	if got := w.src.sum(); got != hex {
		return fmt.Errorf("%w: have sha256:%s", ErrDigest, got)
	}
	if err := w.finish(); err != nil {
		return err
	}
	return work.publish(s.layerDir(hex), s.sync)
}

// layerWriter splits a tar into the files of a layer.
type layerWriter struct {
	store    *Store
	src      *source
	files    map[string]*os.File
	index    *indexWriter
	blob     *blobWriter
	small    *bufio.Writer
	smallOff int64
	expanded int64
	dropped  map[string]bool // xattr names warned about
	buf      []byte
}

func (s *Store) newLayerWriter(ctx context.Context, work *workDir, r io.Reader) (_ *layerWriter, err error) {
	w := &layerWriter{store: s, files: map[string]*os.File{}, dropped: map[string]bool{}, buf: make([]byte, 128<<10)}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	for _, name := range []string{indexFile, dataFile, smallFile, frameFile} {
		f, err := os.OpenFile(work.file(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("create layer file: %w", err)
		}
		w.files[name] = f
	}
	frame, err := newFrameWriter(w.files[frameFile])
	if err != nil {
		return nil, err
	}
	w.src = newSource(ctx, r, s.limits.TarSize, frame)
	w.index = newIndexWriter(w.files[indexFile], s.limits.IndexSize)
	w.blob = newBlobWriter(w.files[dataFile])
	w.small = bufio.NewWriterSize(w.files[smallFile], 256<<10)
	return w, nil
}

func (w *layerWriter) close() {
	for _, f := range w.files {
		f.Close()
	}
}

// readTar reads all entries, and then what follows the end of the archive: it
// is part of the stream that the diffID names.
func (w *layerWriter) readTar() error {
	tr := tar.NewReader(w.src)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return w.src.explain(err)
		}
		if err := w.add(hdr, tr); err != nil {
			return err
		}
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{w.src}, w.buf); err != nil {
		return w.src.explain(err)
	}
	return nil
}

// add takes in one entry. Contents that it does not read, the tar reader skips
// as they lie in the tar, so a sparse file costs nothing there.
func (w *layerWriter) add(hdr *tar.Header, contents io.Reader) error {
	l := &w.store.limits
	if w.index.foot.entries >= l.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, l.Entries)
	}
	e, ok, err := newEntry(hdr, l)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	if e.kind == kindWhiteout || e.kind == kindOpaque {
		return w.index.add(&e)
	}
	var dropped []string
	if e.xattrs, dropped, err = xattrsOf(hdr, l); err != nil {
		return err
	}
	w.warnDropped(e.path, dropped)
	if e.kind == kindFile {
		if err := w.contents(&e, hdr, contents); err != nil {
			return err
		}
	}
	return w.index.add(&e)
}

// warnDropped logs each xattr name once.
func (w *layerWriter) warnDropped(path string, names []string) {
	for _, name := range names {
		if len(w.dropped) < 16 && !w.dropped[name] {
			w.dropped[name] = true
			w.store.log.Warn("dropped an extended attribute of the layer", "name", name, "path", path)
		}
	}
}

// contents stores the contents of a regular file. Those of a sparse file are
// stored as a process would read them, with the holes, and once more in the
// frame as the tar has them: which bytes were holes cannot be told later.
func (w *layerWriter) contents(e *entry, hdr *tar.Header, r io.Reader) error {
	if w.expanded += e.size; e.size < 0 || e.size > w.store.limits.Expanded || w.expanded > w.store.limits.Expanded {
		return fmt.Errorf("%w: more than %d bytes of file contents", ErrLimit, w.store.limits.Expanded)
	}
	sparse := isSparse(hdr)
	var err error
	switch {
	case e.size == 0:
		return nil
	case e.size <= smallMax:
		e.place, e.offset = placeSmall, w.smallOff
		w.smallOff += e.size
		err = w.copy(w.small, r, e, sparse)
	default:
		e.place, e.offset = placeData, w.blob.offset()
		err = w.copy(w.blob, r, e, sparse)
		w.blob.align()
	}
	return err
}

func (w *layerWriter) copy(to io.Writer, r io.Reader, e *entry, sparse bool) error {
	if !sparse {
		if err := w.src.frame.record(e.place, e.offset, e.size); err != nil {
			return err
		}
		w.src.quiet = true
		defer func() { w.src.quiet = false }()
	}
	for left := e.size; left > 0; {
		before := w.src.given
		n, err := io.ReadFull(r, w.buf[:min(left, int64(len(w.buf)))])
		if err != nil {
			return w.src.explain(noEOF(err))
		}
		if to == io.Writer(w.blob) && w.src.given == before {
			err = w.blob.hole(n) // read without a byte of the tar
		} else {
			_, err = to.Write(w.buf[:n])
		}
		if err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
		left -= int64(n)
		if err := w.src.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// finish completes and syncs the files.
func (w *layerWriter) finish() error {
	dataSize, err := w.blob.finish()
	if err != nil {
		return err
	}
	if err := w.small.Flush(); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	if err := w.src.frame.finish(); err != nil {
		return err
	}
	if err := w.index.finish(w.src.n, dataSize, w.smallOff); err != nil {
		return err
	}
	if !w.store.sync {
		return nil
	}
	for name, f := range w.files {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync layer %s: %w", name, err)
		}
	}
	return nil
}
