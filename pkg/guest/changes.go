package guest

import (
	"bufio"
	"errors"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/archive"
)

// newOutput is the stage's way to the host.
func newOutput() *bufio.Writer { return bufio.NewWriterSize(os.Stdout, api.MaxData) }

// differ finds what the upper layer of the root file system changes of the
// image. Both are walked side by side by descriptors, one element of a path at a
// time: the container changes its files as they are looked at.
type differ struct {
	// report is told of each change; name is the file in its directory dir,
	// which has it unless the change is a deletion.
	report func(c api.Change, dir *os.File, name string) error
	// waiting are the directories on the way down that have not been reported:
	// they are changed ones if something in them is.
	waiting []waitingDir
}

type waitingDir struct {
	path string
	dir  *os.File
	name string
}

// changes calls report for each change, a directory before what is in it.
func (f *fileStage) changes(report func(api.Change, *os.File, string) error) error {
	return compare(f.Place.upper(), f.Place.Image, report)
}

func compare(upperDir, lowerDir string, report func(api.Change, *os.File, string) error) error {
	upper, err := os.Open(upperDir)
	if err != nil {
		return err
	}
	defer upper.Close()
	lower, err := os.Open(lowerDir)
	if err != nil {
		return err
	}
	defer lower.Close()
	d := differ{report: report}
	return d.dir(upper, lower, "/", false)
}

// dir compares a directory of the upper layer with the image's, nil if it has
// none. All of the image's is hidden if the directory, or one that it is in, has
// been removed and made again: overlayfs marks the first of them only.
func (d *differ) dir(upper, lower *os.File, p string, hides bool) error {
	names, err := upper.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	hides = hides || isOpaque(upper)
	var hidden []string
	if hides && lower != nil {
		if hidden, err = namesBut(lower, names); err != nil {
			return err
		}
	}
	all := slices.Concat(names, hidden)
	slices.Sort(all)
	for _, name := range all {
		if _, gone := slices.BinarySearch(hidden, name); gone {
			err = d.say('D', path.Join(p, name), upper, name)
		} else {
			err = d.file(upper, lower, name, path.Join(p, name), hides)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // it may be gone meanwhile
			return err
		}
	}
	return nil
}

// namesBut are the sorted names in a directory without those of a sorted list.
func namesBut(dir *os.File, list []string) ([]string, error) {
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return slices.DeleteFunc(names, func(n string) bool {
		_, there := slices.BinarySearch(list, n)
		return there
	}), err
}

// isOpaque reports whether a directory of an upper layer hides what the layers
// below have in it (overlayfs.rst of the kernel).
func isOpaque(d *os.File) bool {
	var v [1]byte
	n, err := unix.Fgetxattr(int(d.Fd()), "trusted.overlay.opaque", v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

// isWhiteout reports whether a file of an upper layer says that one is gone.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func (d *differ) file(upper, lower *os.File, name, p string, hides bool) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(upper.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	before, err := statBefore(lower, name)
	if err != nil {
		return err
	}
	switch {
	case isWhiteout(&st) && before == nil:
		return nil // of a file that came and went
	case isWhiteout(&st):
		return d.say('D', p, upper, name)
	case isDir(&st):
		kind := kindOf(p, &st, before)
		if kind == 'A' && holdsBundleLink(upper, name, p) {
			kind = 0
		}
		return d.subdir(upper, lower, waitingDir{p, upper, name}, kind, hides)
	case madeBySetup(p), p == systemBundle && isBundleLink(upper, name):
		return nil
	case before != nil:
		return d.say('C', p, upper, name)
	}
	return d.say('A', p, upper, name)
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// statBefore looks at a file of the image; nil if it has none.
func statBefore(lower *os.File, name string) (*unix.Stat_t, error) {
	if lower == nil {
		return nil, nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(lower.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return &st, err
}

// kindOf is the kind of change of a directory, 0 for none of its own.
func kindOf(p string, now, before *unix.Stat_t) byte {
	switch {
	case before == nil && slices.Contains([]string{"/dev", "/proc", "/sys", "/etc", api.CADir}, p):
		return 0 // see fixRoot
	case before == nil:
		return 'A'
	case !isDir(before), now.Mode != before.Mode, now.Uid != before.Uid, now.Gid != before.Gid:
		return 'C'
	}
	return 0
}

// madeBySetup are files that the start of a container puts into its root, to
// mount others over them. They are no change of the container's.
func madeBySetup(p string) bool {
	return slices.Contains([]string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", api.CABundle, api.CAExtra}, p)
}

func (d *differ) subdir(upper, lower *os.File, w waitingDir, kind byte, hides bool) error {
	depth := len(d.waiting)
	if kind == 0 {
		d.waiting = append(d.waiting, w)
	} else if err := d.say(kind, w.path, upper, w.name); err != nil {
		return err
	}
	sub, err := openDir(upper, w.name)
	if err != nil {
		return err
	}
	defer sub.Close()
	var below *os.File
	if lower != nil {
		below, err = openDir(lower, w.name)
		switch {
		case err == nil:
			defer below.Close()
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
			return err
		}
	}
	err = d.dir(sub, below, w.path, hides)
	d.waiting = d.waiting[:min(depth, len(d.waiting))]
	return err
}

// openDir opens a directory that is no link.
func openDir(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// say reports a change, and before it the directories that it is in.
func (d *differ) say(kind byte, p string, dir *os.File, name string) error {
	for _, w := range d.waiting {
		if err := d.report(api.Change("C"+w.path), w.dir, w.name); err != nil {
			return err
		}
	}
	d.waiting = d.waiting[:0]
	return d.report(api.Change(string(kind)+p), dir, name)
}

func (f *fileStage) listChanges() error {
	out := newOutput()
	err := f.changes(func(c api.Change, _ *os.File, _ string) error {
		_, err := out.WriteString(string(c) + "\x00")
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

// writeLayer writes the changes as a layer of an image.
func (f *fileStage) writeLayer() error {
	return writeArchive(func(w *archive.Writer) error {
		return f.changes(func(c api.Change, dir *os.File, name string) error {
			as := c.Path()[1:]
			if c.Kind() == 'D' {
				return w.Whiteout(as)
			}
			return w.Entry(dir, name, as)
		})
	})
}
