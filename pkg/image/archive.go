package image

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits on an archive of images. Its layers are single entries, so real
// archives have few.
const (
	maxEntries     = 16 << 10
	maxEntryName   = 1 << 10
	maxLinkFollows = 1
)

// archive is an image archive as a table of where its files are. Nothing is
// ever unpacked: names are only keys.
type archive struct {
	r     io.ReaderAt
	files map[string]section
	links map[string]string
	done  func() error
}

type section struct{ off, size int64 }

func (a *archive) close() error { return a.done() }

// openArchive opens an archive file, compressed or not.
func (s *Store) openArchive(ctx context.Context, name string) (*archive, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a, err := s.readArchive(ctx, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	inner := a.done
	a.done = func() error { return errors.Join(inner(), f.Close()) }
	return a, nil
}

// readArchive makes the table of an archive that comes as a stream. A plain tar
// in a regular file is read in place, so r must stay open as long as the
// archive; anything else is spooled, uncompressed.
func (s *Store) readArchive(ctx context.Context, r io.Reader) (*archive, error) {
	f, done := inPlace(r), func() error { return nil }
	if f == nil {
		var err error
		if f, err = s.spool(ctx, r); err != nil {
			return nil, err
		}
		done = f.Close
	}
	a, err := indexTar(ctx, f)
	if err != nil {
		done()
		return nil, err
	}
	a.done = done
	return a, nil
}

// inPlace returns r if it is a regular file that holds a plain tar and is at
// its start, else nil.
func inPlace(r io.Reader) *os.File {
	f, ok := r.(*os.File)
	if !ok {
		return nil
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 0 {
		return nil
	}
	var head [512]byte
	if n, _ := f.ReadAt(head[:], 0); n < len(head) || string(head[257:262]) != "ustar" {
		return nil
	}
	return f
}

// spool copies a stream, uncompressed, into a file without a name, which goes
// away with its descriptor, however this process ends.
func (s *Store) spool(ctx context.Context, r io.Reader) (*os.File, error) {
	packed := &ctxReader{ctx: ctx, r: r}
	plain, free, err := decompressFile(bufio.NewReaderSize(packed, 256<<10))
	if err != nil {
		return nil, err
	}
	defer free()
	return s.spoolPlain(ctx, &boundReader{plain: plain, from: packed}, s.o.MaxSpool)
}

// spoolPlain is spool for at most so many bytes, which are taken as they come.
func (s *Store) spoolPlain(ctx context.Context, plain io.Reader, most int64) (*os.File, error) {
	f, err := s.tempFile("spool")
	if err != nil {
		return nil, fmt.Errorf("spool archive: %w", err)
	}
	src := &ctxReader{ctx: ctx, r: io.LimitReader(plain, most+1)}
	n, err := io.Copy(f, src)
	switch {
	case src.err != nil && ctx.Err() == nil:
		err = fmt.Errorf("%w: read archive: %w", ErrInvalid, src.err)
	case err != nil:
		err = fmt.Errorf("spool archive in %s: %w", s.dir, err)
	case n > most:
		err = fmt.Errorf("%w: archive is larger than %d bytes", ErrInvalid, most)
	default:
		return f, nil
	}
	f.Close()
	return nil, err
}

// ctxReader lets a long copy be cancelled between two reads, and tells an error
// of its source from one of the destination.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
	n   int64 // bytes read
	err error // of the source, not io.EOF
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// indexTar reads the headers of a whole tar. One entry that has no business in
// an image archive spoils it all.
func indexTar(ctx context.Context, f io.ReaderAt) (*archive, error) {
	at := &offsetReader{r: f}
	tr := tar.NewReader(at)
	a := &archive{r: f, files: map[string]section{}, links: map[string]string{}}
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: read archive: %w", ErrInvalid, err)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if n >= maxEntries {
			return nil, fmt.Errorf("%w: archive has more than %d entries", ErrInvalid, maxEntries)
		}
		if err := a.add(h, at.off); err != nil {
			return nil, fmt.Errorf("%w: archive: %w", ErrInvalid, err)
		}
	}
	if len(a.files) == 0 {
		return nil, fmt.Errorf("%w: not an image archive: no tar file, or an empty one", ErrInvalid)
	}
	return a, nil
}

func (a *archive) add(h *tar.Header, off int64) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := entryName(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
	case tar.TypeReg:
		if isSparse(h) {
			return fmt.Errorf("entry %q is sparse", name)
		}
		a.files[name] = section{off, h.Size}
		delete(a.links, name)
	case tar.TypeSymlink:
		// Docker before 25 wrote a layer that comes twice as a link to the
		// first. It is an alias for another entry, or it is refused.
		to, err := entryName(path.Join(path.Dir(name), h.Linkname))
		if err != nil || path.IsAbs(h.Linkname) {
			return fmt.Errorf("link %q leaves the archive: it goes to %q", name, clip(h.Linkname))
		}
		a.links[name] = to
		delete(a.files, name)
	default:
		return fmt.Errorf("entry %q is neither a file nor a directory (tar type %q)", name, h.Typeflag)
	}
	return nil
}

// isSparse knows the headers under which an entry's size is not the number of
// its bytes in the archive.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// entryName gives the clean form of a name that stays inside the archive.
func entryName(name string) (string, error) {
	if len(name) > maxEntryName {
		return "", fmt.Errorf("entry name is longer than %d bytes", maxEntryName)
	}
	clean := path.Clean(name)
	if name == "" || path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("entry %q is outside the archive", clip(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("entry %q is outside the archive", clip(name))
		}
	}
	return clean, nil
}

// has reports whether the archive holds a file of this name.
func (a *archive) has(name string) bool {
	_, err := a.find(name)
	return err == nil
}

// find looks a file up by a name that the archive's own documents give.
func (a *archive) find(name string) (section, error) {
	clean, err := entryName(name)
	if err != nil {
		return section{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for range maxLinkFollows + 1 {
		if s, ok := a.files[clean]; ok {
			return s, nil
		}
		to, ok := a.links[clean]
		if !ok {
			break
		}
		clean = to
	}
	return section{}, fmt.Errorf("%w: archive holds no file %q", ErrInvalid, clip(name))
}

func (a *archive) reader(s section) io.ReadCloser {
	return io.NopCloser(io.NewSectionReader(a.r, s.off, s.size))
}

// document reads a small file.
func (a *archive) document(name string) ([]byte, error) {
	s, err := a.find(name)
	if err != nil {
		return nil, err
	}
	raw, err := readDocument(a.reader(s))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return raw, nil
}

func (a *archive) manifest(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return a.document(blobName(d.Digest.String()))
}

func (a *archive) open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	s, err := a.find(blobName(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	return a.reader(s), nil
}

// blobName is where an OCI layout keeps the content of a digest.
func blobName(digest string) string { return "blobs/sha256/" + hexOf(digest) }

// offsetReader reads on from where it is and knows where that is. It can seek,
// so that a tar's contents are skipped and not read.
type offsetReader struct {
	r   io.ReaderAt
	off int64
}

func (o *offsetReader) Read(p []byte) (int, error) {
	n, err := o.r.ReadAt(p, o.off)
	o.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (o *offsetReader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		o.off = off
	case io.SeekCurrent:
		o.off += off
	default:
		return 0, errors.ErrUnsupported
	}
	return o.off, nil
}
