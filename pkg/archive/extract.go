package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Target says where Extract puts files and what they become.
type Target struct {
	// Root is the directory; nothing outside of it is touched.
	Root *os.Root
	// From and To: names at and below From are put at and below To, and others
	// are refused. An empty From, or ".", takes all names.
	From, To string
	// Owner gives a file of the archive its owner; nil leaves it the one of this
	// process, and takes its set-id bits away, which were meant for another.
	Owner func(uid, gid int) (int, int)
	// Devices makes device nodes, which are refused otherwise.
	Devices bool
	// Merge gives a directory that exists the archive's mode, owner and time,
	// and a file a link to one that the archive does not hold. Without it what
	// was there before stays as it is, unless a file takes its name.
	Merge bool
	// Xattrs sets extended attributes.
	Xattrs bool
}

// Extract puts the files of a tar stream into t.Root. A file takes the place of
// what has its name, but for a directory, which takes the place of nothing else
// and nothing else of it. On an error what was done stays.
func Extract(r io.Reader, t Target) error {
	x := &extractor{Target: t, made: map[fileID]bool{}}
	defer x.close()
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := x.entry(hdr, tr); err != nil {
			return err
		}
	}
	if err := x.finish(); err != nil {
		return err
	}
	// The sender is to see its stream taken to the end.
	_, err := io.Copy(io.Discard, r)
	return err
}

type extractor struct {
	Target
	made map[fileID]bool // regular files of this archive
	dirs []late

	parentName string
	parent     *os.File // the last directory that was opened
}

// late is a directory that gets its last word when all is in it.
type late struct {
	name string
	hdr  *tar.Header
}

func (x *extractor) close() {
	if x.parent != nil {
		x.parent.Close()
	}
}

// entry puts one file in its place.
func (x *extractor) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := x.place(hdr.Name)
	if err != nil || name == "." {
		return err
	}
	if err := checkEntry(hdr); err != nil {
		return err
	}
	err = x.put(name, hdr, content)
	if err != nil && !errors.Is(err, ErrInvalid) {
		err = fmt.Errorf("extract %q: %w", name, err)
	}
	return err
}

// place is where a name of the archive belongs.
func (x *extractor) place(name string) (string, error) {
	name, err := clean(name)
	if err != nil {
		return "", err
	}
	return renamed(name, x.From, x.To)
}

// checkEntry refuses what no file can be made of, before anything is touched.
func checkEntry(hdr *tar.Header) error {
	for key := range hdr.PAXRecords {
		// A few bytes could stand for an endless file of zeros.
		if strings.HasPrefix(key, "GNU.sparse.") {
			return fmt.Errorf("%w: %q is stored as a sparse file", ErrInvalid, hdr.Name)
		}
	}
	const maxID = 1<<32 - 2 // the last is the kernel's "nobody in particular"
	if hdr.Uid < 0 || hdr.Gid < 0 || hdr.Uid > maxID || hdr.Gid > maxID {
		return fmt.Errorf("%w: %q belongs to %d:%d", ErrInvalid, hdr.Name, hdr.Uid, hdr.Gid)
	}
	return nil
}

func (x *extractor) put(name string, hdr *tar.Header, content io.Reader) error {
	dir, err := x.dirOf(name)
	if err != nil {
		return err
	}
	base := path.Base(name)
	exists, err := x.makeWay(dir, base, name, hdr)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.dir(dir, base, name, hdr, exists)
	case tar.TypeReg:
		return x.file(dir, base, hdr, content)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(hdr.Linkname, int(dir.Fd()), base); err != nil {
			return err
		}
	case tar.TypeLink:
		return x.link(dir, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := x.node(dir, base, hdr); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: %q is of the unknown type %q", ErrInvalid, hdr.Name, hdr.Typeflag)
	}
	return x.dressAt(dir, base, hdr)
}

// dirOf opens the directory that name is in, and makes what is missing of it.
// Links in the way are followed as long as they stay in Root.
func (x *extractor) dirOf(name string) (*os.File, error) {
	parent := path.Dir(name)
	if x.parent != nil && x.parentName == parent {
		return x.parent, nil
	}
	d, err := x.Root.OpenFile(parent, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := x.Root.MkdirAll(parent, 0o755); err != nil {
			return nil, err
		}
		d, err = x.Root.OpenFile(parent, os.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return nil, err
	}
	x.close()
	x.parentName, x.parent = parent, d
	return d, nil
}

// makeWay removes what a file takes the place of, and reports whether a
// directory is there already.
func (x *extractor) makeWay(dir *os.File, base, name string, hdr *tar.Header) (exists bool, err error) {
	st, err := statAt(dir, base)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case isDir && hdr.Typeflag == tar.TypeDir:
		return true, nil
	case isDir:
		return false, fmt.Errorf("cannot overwrite directory %q with non-directory", name)
	case hdr.Typeflag == tar.TypeDir:
		return false, fmt.Errorf("cannot overwrite non-directory %q with directory", name)
	}
	return false, unix.Unlinkat(int(dir.Fd()), base, 0)
}

func (x *extractor) dir(parent *os.File, base, name string, hdr *tar.Header, exists bool) error {
	if exists && !x.Merge {
		return nil
	}
	if !exists {
		if err := unix.Mkdirat(int(parent.Fd()), base, 0o700); err != nil {
			return err
		}
	}
	d, err := openAt(parent, base, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	x.dirs = append(x.dirs, late{name, hdr})
	// Until all is in it, its owner can write to it.
	return x.dress(d, hdr, hdr.Mode|0o700)
}

func (x *extractor) file(dir *os.File, base string, hdr *tar.Header, content io.Reader) error {
	f, err := createAt(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if !x.Merge {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		x.made[idOf(&st)] = true
	}
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := x.dress(f, hdr, hdr.Mode); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return setTimes(dir, base, hdr)
}

// link makes one more name of a file. Without Merge it must be of this archive:
// else a stream could make names, in a place that it may choose, for what was
// there before. The file has its mode and owner already.
func (x *extractor) link(dir *os.File, base string, hdr *tar.Header) error {
	target, err := x.place(hdr.Linkname)
	if err != nil {
		return err
	}
	from, err := x.Root.OpenFile(path.Dir(target), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	st, err := statAt(from, path.Base(target))
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	if !x.Merge && !x.made[idOf(&st)] {
		return fmt.Errorf("%w: %q is a link to %q, which is no file of the archive", ErrInvalid, hdr.Name, hdr.Linkname)
	}
	return unix.Linkat(int(from.Fd()), path.Base(target), int(dir.Fd()), base, 0)
}

func (x *extractor) node(dir *os.File, base string, hdr *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
	if kind != unix.S_IFIFO && !x.Devices {
		return errors.New("a device is not copied")
	}
	if hdr.Devmajor < 0 || hdr.Devminor < 0 || hdr.Devmajor > 1<<12 || hdr.Devminor > 1<<20 {
		return fmt.Errorf("%w: %q is device %d/%d", ErrInvalid, hdr.Name, hdr.Devmajor, hdr.Devminor)
	}
	dev := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
	return unix.Mknodat(int(dir.Fd()), base, kind|x.mode(hdr.Mode), int(dev))
}
