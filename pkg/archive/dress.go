package archive

import (
	"archive/tar"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// mode is the mode that a file gets.
func (x *extractor) mode(mode int64) uint32 {
	if x.Owner == nil {
		return uint32(mode & 0o1777)
	}
	return uint32(mode & 0o7777)
}

// dress gives an open file its owner, attributes and mode, in this order: the
// kernel takes the later ones away with the earlier.
func (x *extractor) dress(f *os.File, hdr *tar.Header, mode int64) error {
	fd := int(f.Fd())
	if x.Owner != nil {
		uid, gid := x.Owner(hdr.Uid, hdr.Gid)
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("give it to %d:%d: %w", uid, gid, err)
		}
	}
	if err := unix.Fchmod(fd, x.mode(mode)); err != nil {
		return err
	}
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !x.Xattrs || !keepsXattr(name) {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil && err != unix.ENOTSUP {
			return fmt.Errorf("set attribute %q: %w", name, err)
		}
	}
	return nil
}

// dressAt is dress for what cannot be opened, and was made with its mode.
func (x *extractor) dressAt(dir *os.File, base string, hdr *tar.Header) error {
	if x.Owner != nil {
		uid, gid := x.Owner(hdr.Uid, hdr.Gid)
		if err := unix.Fchownat(int(dir.Fd()), base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("give it to %d:%d: %w", uid, gid, err)
		}
	}
	return setTimes(dir, base, hdr)
}

func setTimes(dir *os.File, base string, hdr *tar.Header) error {
	t, err := unix.TimeToTimespec(hdr.ModTime)
	if err != nil {
		return fmt.Errorf("%w: time of %q: %w", ErrInvalid, hdr.Name, err)
	}
	return unix.UtimesNanoAt(int(dir.Fd()), base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives the directories their modes and times, the inner ones first.
func (x *extractor) finish() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if err := x.settle(x.dirs[i]); err != nil {
			return fmt.Errorf("extract %q: %w", x.dirs[i].name, err)
		}
	}
	return nil
}

func (x *extractor) settle(l late) error {
	parent, err := x.Root.OpenFile(path.Dir(l.name), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	d, err := openAt(parent, path.Base(l.name), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	if l.hdr.Mode&0o700 != 0o700 {
		if err := unix.Fchmod(int(d.Fd()), x.mode(l.hdr.Mode)); err != nil {
			return err
		}
	}
	return setTimes(parent, path.Base(l.name), l.hdr)
}
