package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Writer writes files as a tar stream. Not safe for concurrent use.
type Writer struct {
	tw    *tar.Writer
	links map[fileID]string // files with several names -> the first of them

	// Enter says whether the content of a directory is written; nil is always.
	Enter func(dir *os.File) bool
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{tw: tar.NewWriter(w), links: map[fileID]string{}}
}

// Close writes the end of the archive.
func (w *Writer) Close() error { return w.tw.Close() }

// Add writes the file name, one element or ".", of a directory, and all that is
// below it, under another name. Links are not followed. Sockets are left out, as
// tar programs do.
func (w *Writer) Add(dir *os.File, name, as string) error {
	d, err := w.entry(dir, name, as)
	if err != nil || d == nil {
		return named(as, err)
	}
	defer d.Close()
	if w.Enter != nil && !w.Enter(d) {
		return nil
	}
	return w.content(d, as+"/")
}

// AddContent is Add for all that is in a directory, without the directory.
func (w *Writer) AddContent(dir *os.File) error { return w.content(dir, "") }

// Entry is Add without what is below.
func (w *Writer) Entry(dir *os.File, name, as string) error {
	d, err := w.entry(dir, name, as)
	if d != nil {
		d.Close()
	}
	return named(as, err)
}

// Whiteout writes that a file is gone, as the OCI image specification has it for
// layers.
func (w *Writer) Whiteout(as string) error {
	i := strings.LastIndexByte(as, '/') + 1
	return w.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: as[:i] + ".wh." + as[i:], Format: tar.FormatPAX})
}

// named makes an error one about the file with this name.
func named(name string, err error) error {
	var p *os.PathError
	if err == nil || errors.As(err, &p) {
		return err
	}
	return &os.PathError{Op: "archive", Path: name, Err: err}
}

// entry writes one file, and returns a directory opened.
func (w *Writer) entry(dir *os.File, name, as string) (*os.File, error) {
	st, err := statAt(dir, name)
	if err != nil {
		return nil, err
	}
	hdr := header(as, &st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil, w.file(dir, name, hdr, &st)
	case unix.S_IFDIR:
		return w.dir(dir, name, hdr)
	case unix.S_IFLNK:
		hdr.Typeflag = tar.TypeSymlink
		if hdr.Linkname, err = readlinkAt(dir, name); err != nil {
			return nil, err
		}
	case unix.S_IFCHR:
		hdr.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		hdr.Typeflag = tar.TypeBlock
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	default:
		return nil, nil
	}
	if !w.linked(hdr, &st) && hdr.Typeflag != tar.TypeSymlink {
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return nil, w.tw.WriteHeader(hdr)
}

// header is what all kinds of files have. The owner's names are those of another
// machine wherever this is read, so there are none.
func header(name string, st *unix.Stat_t) *tar.Header {
	return &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
}

// linked makes hdr a link if the file has been written under another name.
func (w *Writer) linked(hdr *tar.Header, st *unix.Stat_t) bool {
	if st.Nlink < 2 {
		return false
	}
	first, ok := w.links[idOf(st)]
	if !ok {
		w.links[idOf(st)] = hdr.Name
		return false
	}
	hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
	return true
}

func (w *Writer) file(dir *os.File, name string, hdr *tar.Header, st *unix.Stat_t) error {
	hdr.Typeflag = tar.TypeReg
	if w.linked(hdr, st) {
		return w.tw.WriteHeader(hdr)
	}
	// O_NONBLOCK: should it have become a FIFO meanwhile, nobody waits for it.
	f, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return err
	}
	defer f.Close()
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return err
	}
	if now.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("it changed while it was read")
	}
	hdr.Size = now.Size
	if err := addXattrs(hdr, f); err != nil {
		return err
	}
	if err := w.tw.WriteHeader(hdr); err != nil {
		return err
	}
	// One that grows is written as long as it was.
	n, err := io.Copy(w.tw, io.LimitReader(f, hdr.Size))
	if err == nil && n < hdr.Size {
		err = errors.New("it shrank while it was read")
	}
	return err
}

func (w *Writer) dir(parent *os.File, name string, hdr *tar.Header) (*os.File, error) {
	d, err := openAt(parent, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	hdr.Typeflag, hdr.Name = tar.TypeDir, hdr.Name+"/"
	if err = addXattrs(hdr, d); err == nil {
		err = w.tw.WriteHeader(hdr)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// content writes what is in a directory, in the order of the names, so that the
// same files give the same bytes.
func (w *Writer) content(d *os.File, prefix string) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.Add(d, name, prefix+name); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue // gone meanwhile
			}
			return err
		}
	}
	return nil
}

// addXattrs puts the attributes that belong to a file's content into its header.
func addXattrs(hdr *tar.Header, f *os.File) error {
	names := make([]byte, maxXattr)
	n, err := unix.Flistxattr(int(f.Fd()), names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if !keepsXattr(name) || strings.ContainsRune(name, '=') { // the format has no such names
			continue
		}
		value := make([]byte, maxXattr)
		n, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read extended attribute %q: %w", name, err)
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[xattrPrefix+name] = string(value[:n])
	}
	return nil
}
