package rootfs

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"
)

// kind is what an entry of a layer is.
type kind uint8

const (
	kindDir kind = 1 + iota
	kindFile
	kindSymlink
	kindLink // hard link; never the kind of an inode
	kindChar
	kindBlock
	kindFifo
	kindWhiteout // path is the removed name
	kindOpaque   // path is the directory
	kindEnd      // first invalid value
)

// place is where the contents of a regular file are.
type place uint8

const (
	placeNone  place = iota // empty file
	placeSmall              // offset into the small file of the layer
	placeData               // offset into the data file, a multiple of blockSize
	placeEnd
)

const (
	blockSize = 4096
	// smallMax is the size up to which contents are stored inline in the
	// metadata of the image. A larger file gets whole blocks of the layer's
	// data, which images share.
	smallMax = blockSize / 2

	maxName    = 255  // NAME_MAX of Linux
	maxSymlink = 4095 // PATH_MAX without the NUL
	maxID      = 1<<32 - 2
	maxMajor   = 1<<12 - 1
	maxMinor   = 1<<20 - 1
)

// entry is one entry of a layer, checked and normalised.
type entry struct {
	kind         kind
	path         string // clean, relative to the root, "" for the root
	mode         uint16 // 07777 bits
	uid, gid     uint32
	sec          int64 // mtime, not negative
	nsec         uint32
	size         int64
	place        place
	offset       int64
	target       string // of a symlink as is; of a hard link as path
	major, minor uint32
	xattrs       string // see appendXattr
}

func badEntry(name, format string, args ...any) error {
	return fmt.Errorf("%w: entry %.300q: %s", ErrLayer, name, fmt.Sprintf(format, args...))
}

// Whiteout names, https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // AUFS bookkeeping; every runtime ignores it
)

// newEntry checks hdr and returns what the layer says with it; ok is false
// for entries that say nothing about the file system.
func newEntry(hdr *tar.Header, l *Limits) (e entry, ok bool, err error) {
	name := hdr.Name
	if err := checkPAX(hdr); err != nil || hdr.Typeflag == tar.TypeXGlobalHeader {
		return e, false, err
	}
	e.kind, err = kindOf(hdr)
	if err != nil {
		return e, false, err
	}
	e.path, err = cleanPath(name, l)
	if err != nil {
		return e, false, err
	}
	if ignored, err := e.whiteout(name); err != nil || ignored {
		return e, false, err
	}
	if e.kind == kindWhiteout || e.kind == kindOpaque {
		return e, true, nil
	}
	if e.path == "" && e.kind != kindDir {
		return e, false, badEntry(name, "the root is not a directory")
	}
	if err := e.setAttributes(hdr); err != nil {
		return e, false, err
	}
	return e, true, e.setTarget(hdr, l)
}

// checkPAX rejects records of which tar readers make different things: global
// ones that say where entries are, which Go ignores and GNU tar obeys, and a
// name that a GNU header contradicts.
func checkPAX(hdr *tar.Header) error {
	for _, r := range [...]struct{ key, value string }{{"path", hdr.Name}, {"linkpath", hdr.Linkname}, {"size", ""}} {
		value, ok := hdr.PAXRecords[r.key]
		if ok && hdr.Typeflag == tar.TypeXGlobalHeader {
			return badEntry(hdr.Name, "global %s", r.key)
		}
		if ok && r.key != "size" && value != "" && value != r.value && hdr.PAXRecords["GNU.sparse.name"] == "" {
			return badEntry(hdr.Name, "the %s is also %.300q", r.key, value)
		}
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader && isSparse(hdr) {
		return badEntry(hdr.Name, "global sparse map")
	}
	return nil
}

// kindOf maps the type flag. Where tar readers disagree on what follows a
// header (contents after a header that has none, or a file whose name ends in
// a slash), two of them would see different archives: such entries are
// rejected.
func kindOf(hdr *tar.Header) (kind, error) {
	var k kind
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		if strings.HasSuffix(hdr.Name, "/") {
			return 0, badEntry(hdr.Name, "a file named as a directory")
		}
		return kindFile, nil
	case tar.TypeDir:
		k = kindDir
	case tar.TypeSymlink:
		k = kindSymlink
	case tar.TypeLink:
		k = kindLink
	case tar.TypeChar:
		k = kindChar
	case tar.TypeBlock:
		k = kindBlock
	case tar.TypeFifo:
		k = kindFifo
	default:
		return 0, badEntry(hdr.Name, "unknown type %q", hdr.Typeflag)
	}
	if hdr.Size != 0 {
		return 0, badEntry(hdr.Name, "type %q with %d bytes of contents", hdr.Typeflag, hdr.Size)
	}
	return k, nil
}

// cleanPath clamps name inside the root, as a process in a chroot would see
// it, and returns it without leading slash; "" is the root.
func cleanPath(name string, l *Limits) (string, error) {
	p := path.Clean("/" + name)[1:]
	return p, checkPath(p, l)
}

func checkPath(p string, l *Limits) error {
	if len(p) > l.Path {
		return fmt.Errorf("%w: path of %d bytes, at most %d", ErrLimit, len(p), l.Path)
	}
	if n := strings.Count(p, "/"); n > l.Depth {
		return fmt.Errorf("%w: path of depth %d, at most %d", ErrLimit, n, l.Depth)
	}
	for c := range strings.SplitSeq(p, "/") {
		if len(c) > maxName {
			return badEntry(c, "name of %d bytes, at most %d", len(c), maxName)
		}
	}
	if strings.IndexByte(p, 0) >= 0 {
		return badEntry(p, "NUL in the path")
	}
	return nil
}

// whiteout turns an entry with a whiteout name into what it means.
func (e *entry) whiteout(name string) (ignored bool, err error) {
	if !strings.Contains(e.path, whiteoutPrefix) {
		return false, nil
	}
	dir, base := path.Split(e.path)
	for c := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if strings.HasPrefix(c, whiteoutMeta) {
			return true, nil
		} else if strings.HasPrefix(c, whiteoutPrefix) {
			return false, badEntry(name, "below a whiteout")
		}
	}
	removed, is := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case !is:
		return false, nil
	case base == whiteoutOpaque:
		*e = entry{kind: kindOpaque, path: strings.TrimSuffix(dir, "/")}
		return false, nil
	case strings.HasPrefix(base, whiteoutMeta):
		return true, nil
	case removed == "" || removed == "." || removed == "..":
		return false, badEntry(name, "whiteout without a name")
	}
	*e = entry{kind: kindWhiteout, path: dir + removed}
	return false, nil
}

func (e *entry) setAttributes(hdr *tar.Header) error {
	// An id above 2^32-2 becomes root, or nobody's, when cut to 32 bits.
	if hdr.Uid < 0 || hdr.Uid > maxID || hdr.Gid < 0 || hdr.Gid > maxID {
		return badEntry(hdr.Name, "owner %d:%d is out of range", hdr.Uid, hdr.Gid)
	}
	e.uid, e.gid = uint32(hdr.Uid), uint32(hdr.Gid)
	e.mode = uint16(hdr.Mode & 0o7777)
	if e.kind == kindSymlink {
		e.mode = 0o777 // Linux has no other
	}
	if hdr.ModTime.Unix() >= 0 {
		e.sec, e.nsec = hdr.ModTime.Unix(), uint32(hdr.ModTime.Nanosecond())
	}
	if e.kind == kindChar || e.kind == kindBlock {
		if hdr.Devmajor < 0 || hdr.Devmajor > maxMajor || hdr.Devminor < 0 || hdr.Devminor > maxMinor {
			return badEntry(hdr.Name, "device %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
		}
		e.major, e.minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	}
	if e.kind == kindFile {
		e.size = hdr.Size
	}
	return nil
}

func (e *entry) setTarget(hdr *tar.Header, l *Limits) (err error) {
	switch e.kind {
	case kindSymlink:
		e.target = hdr.Linkname
		err = checkSymlink(e.target)
	case kindLink:
		e.target, err = cleanPath(hdr.Linkname, l)
		if err == nil && e.target == "" {
			return badEntry(hdr.Name, "hard link to the root")
		}
	}
	return err
}

func checkSymlink(target string) error {
	if len(target) == 0 || len(target) > maxSymlink || strings.IndexByte(target, 0) >= 0 {
		return badEntry(target, "symlink target of %d bytes, want 1 to %d without NUL", len(target), maxSymlink)
	}
	return nil
}
