package guest

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// imageRoot opens files of a root file system that is not trusted.
type imageRoot struct{ fd int }

func openRoot(dir string) (imageRoot, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return imageRoot{}, fmt.Errorf("open root %s: %w", dir, err)
	}
	return imageRoot{fd}, nil
}

func (r imageRoot) close() { unix.Close(r.fd) }

// open opens a regular file for reading. Links lead inside the root only; a
// FIFO, a device or a directory is refused without being opened.
func (r imageRoot) open(name string) (*os.File, error) {
	probe, err := r.openat2(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	err = checkRegular(probe, name)
	unix.Close(probe)
	if err != nil {
		return nil, err
	}
	// The container of an exec runs, and may have put another thing there:
	// O_NONBLOCK waits for no writer of a FIFO, and what was opened is looked
	// at again.
	fd, err := r.openat2(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(fd, name); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func checkRegular(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file", name)
	}
	return nil
}

func (r imageRoot) openat2(name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(r.fd, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			if err != nil {
				err = &os.PathError{Op: "open", Path: name, Err: err}
			}
			return fd, err
		}
	}
}

// fixRoot makes the places that a container's mounts need be what they must be,
// as docker's init layer does: a link, or whatever else the image has there, is
// replaced, and what a link points to is not touched.
func fixRoot(dir string) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.close()
	for _, p := range []string{"/dev", "/proc", "/sys", "/etc"} {
		if err := root.ensureDir(p); err != nil {
			return fmt.Errorf("prepare %s of the image: %w", p, err)
		}
	}
	if err := root.ensureLink("/etc/mtab", "/proc/mounts"); err != nil {
		return fmt.Errorf("prepare /etc/mtab of the image: %w", err)
	}
	return nil
}

// ensureDir makes every element of p a real directory, 0755 root:root if new.
func (r imageRoot) ensureDir(p string) error {
	fd, err := r.walk(p)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// walk is ensureDir that returns the directory.
func (r imageRoot) walk(p string) (int, error) {
	fd, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, name := range strings.FieldsFunc(p, func(c rune) bool { return c == '/' }) {
		next, err := enter(fd, name)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// enter opens the directory name in dir, following no link, and replaces what
// is no directory.
func enter(dir int, name string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0)
	if err == nil {
		return fd, nil
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return -1, err
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return -1, err
	}
	if err := unix.Mkdirat(dir, name, 0o755); err != nil {
		return -1, err
	}
	return unix.Openat(dir, name, flags, 0)
}

// ensureFile makes p a regular file that is no link.
func (r imageRoot) ensureFile(p string) error {
	dir, err := r.walk(path.Dir(p))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := path.Base(p)
	var st unix.Stat_t
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return nil
	}
	if err == nil {
		err = unix.Unlinkat(dir, name, 0)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// ensureLink makes p a link to target, unless it is a directory.
func (r imageRoot) ensureLink(p, target string) error {
	dir, err := r.walk(path.Dir(p))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Unlinkat(dir, path.Base(p), 0)
	if errors.Is(err, unix.EISDIR) {
		return nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return unix.Symlinkat(target, dir, path.Base(p))
}

const maxLinks = 40 // as many as the kernel follows

// mkdirAll makes the directory p and its parents, 0755, following the links of
// the current root; a link that leads nowhere yet gets its target made.
func mkdirAll(p string) error { return mkdirLinked(p, maxLinks) }

func mkdirLinked(p string, links int) error {
	if links == 0 {
		return unix.ELOOP
	}
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err == nil {
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return unix.ENOTDIR
		}
		return nil
	}
	p = strings.TrimRight(p, "/")
	parent := p[:strings.LastIndexByte(p, '/')+1]
	if parent != "/" && parent != "" {
		if err := mkdirLinked(strings.TrimRight(parent, "/"), links); err != nil {
			return err
		}
	}
	err := unix.Mkdir(p, 0o755)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	buf := make([]byte, unix.PathMax)
	n, lerr := unix.Readlink(p, buf)
	if lerr != nil {
		return err
	}
	target := string(buf[:n])
	if !strings.HasPrefix(target, "/") {
		target = parent + target
	}
	return mkdirLinked(target, links-1)
}
