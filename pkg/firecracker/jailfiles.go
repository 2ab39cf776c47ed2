package firecracker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

// Names in the root of a jail.
const (
	jailKernel = "kernel"
	jailInitrd = "initrd"
	jailAPI    = "api.sock"
	jailVsock  = "vsock.sock"
	jailLog    = "log"
)

// inside is c as the jailed VMM sees it.
func inside(c vmm.Config) vmm.Config {
	c.Kernel, c.Initrd, c.VsockPath = "/"+jailKernel, "/"+jailInitrd, "/"+jailVsock
	c.Disks = slices.Clone(c.Disks)
	for i := range c.Disks {
		c.Disks[i].Path = "/" + diskName(i)
	}
	return c
}

// handIn gives the jail the VM's files, none of them copied but a kernel or an
// initramfs that the jail could not read otherwise.
func (j *jail) handIn(c vmm.Config) error {
	if err := j.handInStart(c); err != nil {
		return err
	}
	for i, d := range c.Disks {
		hand := j.writable
		if d.ReadOnly {
			hand = func(path, name string) error { return j.readable(path, name, false) }
		}
		if err := hand(d.Path, diskName(i)); err != nil {
			return fmt.Errorf("disk %s: %w", diskName(i), err)
		}
	}
	return nil
}

// handInStart gives it what the VM starts from.
func (j *jail) handInStart(c vmm.Config) error {
	if j.template != "" {
		for _, name := range []string{templateMemory, templateState} {
			if err := j.readable(filepath.Join(j.template, name), name, false); err != nil {
				return fmt.Errorf("%w: %s: %w", template.ErrUnusable, name, err)
			}
		}
		return nil
	}
	for _, f := range []struct{ path, name string }{{c.Kernel, jailKernel}, {c.Initrd, jailInitrd}} {
		if err := j.readable(f.path, f.name, true); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// given is a file of ours on its way into the jail, held by a descriptor, so
// that what was looked at is what is handed in.
type given struct {
	fd   int
	stat unix.Stat_t
	path string
}

func open(path string) (*given, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	g := &given{fd: fd, path: path}
	if err := unix.Fstat(fd, &g.stat); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return g, nil
}

func (g *given) close() { unix.Close(g.fd) }

// self names the open file itself, whatever happens to its path.
func (g *given) self() string { return fmt.Sprintf("/proc/self/fd/%d", g.fd) }

func (g *given) isBlock() bool { return g.stat.Mode&unix.S_IFMT == unix.S_IFBLK }

// readable hands in a file that many VMs may read at the same time. It is never
// given to the jail's user, nor made writable. Where its directories keep
// everybody out, everybody may be allowed to read it; where they do not, only
// its content is handed in, if mayCopy.
func (j *jail) readable(path, name string, mayCopy bool) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	defer f.close()
	if f.isBlock() {
		return j.node(f, name, 0o400)
	}
	if f.stat.Mode&0o004 == 0 {
		hidden, err := isHidden(path)
		if err != nil {
			return err
		}
		switch {
		case hidden:
			if err := os.Chmod(f.self(), fs.FileMode(f.stat.Mode&0o777|0o004)); err != nil {
				return fmt.Errorf("let the jail read %s: %w", path, err)
			}
		case mayCopy:
			return j.copyIn(f, name)
		default:
			return fmt.Errorf("%s: the jail's user cannot read it, and others would if it could: put it into a directory of mode 0700", path)
		}
	}
	return j.link(f, name, true)
}

// writable hands in a file of this VM alone: the jail's user owns it until the
// end of the VM.
func (j *jail) writable(path, name string) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	if f.isBlock() {
		defer f.close()
		return j.node(f, name, 0o600)
	}
	if err := j.lend(f); err != nil {
		return err
	}
	return j.link(f, name, false)
}

// lend makes the jail's user the owner of f, and takes f back and closes it at
// the end.
func (j *jail) lend(f *given) error {
	back := func() error { return os.Chown(f.self(), int(f.stat.Uid), int(f.stat.Gid)) }
	if j.owns(f) { // left so by a process that was killed
		back = func() error { return os.Chown(f.self(), os.Geteuid(), os.Getegid()) }
	}
	j.onEnd("give back "+f.path, func() error { defer f.close(); return back() })
	if err := os.Chown(f.self(), j.id(), j.id()); err != nil {
		return fmt.Errorf("give %s to the jail: %w", f.path, err)
	}
	return nil
}

// owns reports that a jail's user owns f.
func (j *jail) owns(f *given) bool { return j.ids.has(uint64(f.stat.Uid)) }

// link makes a second name of f in the jail. Where that cannot be, because f is
// on another file system, the guard binds it.
func (j *jail) link(f *given, name string, readOnly bool) error {
	target := filepath.Join(j.root, name)
	err := unix.Linkat(unix.AT_FDCWD, f.self(), unix.AT_FDCWD, target, unix.AT_SYMLINK_FOLLOW)
	switch err {
	case nil:
		return nil
	case unix.EXDEV, unix.EPERM, unix.EMLINK, unix.EOPNOTSUPP, unix.ENOSYS:
	default:
		return &os.LinkError{Op: "link", Old: f.path, New: target, Err: err}
	}
	j.log.Debug("bound, not linked", "file", f.path, "why", err)
	if err := j.touch(name); err != nil {
		return err
	}
	j.binds = append(j.binds, bind{Source: f.path, Target: target, ReadOnly: readOnly})
	return nil
}

// touch makes an empty file to mount on.
func (j *jail) touch(name string) error {
	f, err := os.OpenFile(filepath.Join(j.root, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	return f.Close()
}

// node makes a block device of the jail's own: the host's one keeps its owner.
func (j *jail) node(f *given, name string, mode uint32) error {
	target := filepath.Join(j.root, name)
	if err := unix.Mknod(target, unix.S_IFBLK|mode, int(f.stat.Rdev)); err != nil {
		return &fs.PathError{Op: "mknod", Path: target, Err: err}
	}
	return errors.Join(os.Chmod(target, fs.FileMode(mode)), os.Lchown(target, j.id(), j.id()))
}

// copyIn gives the jail's user a copy.
func (j *jail) copyIn(f *given, name string) error {
	j.log.Debug("copied into the jail: its user may not read it", "file", f.path)
	from, err := os.Open(f.self())
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(j.root, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Chown(j.id(), j.id()), to.Close())
}

// handInListeners links the sockets on which the host waits for the guest, and
// lets the jail's user connect to them.
func (j *jail) handInListeners(vsock string) error {
	ports, err := listeners(vsock)
	if err != nil {
		return err
	}
	for _, port := range ports {
		f, err := open(vsock + "_" + port)
		if err != nil {
			return err
		}
		if err := j.lend(f); err != nil {
			return err
		}
		if err := os.Chmod(f.self(), 0o600); err != nil {
			return err
		}
		if err := j.link(f, jailVsock+"_"+port, false); err != nil {
			return err
		}
	}
	return nil
}

// listeners are the ports on which the host waits for the guest.
func listeners(vsock string) (ports []string, err error) {
	dir, prefix := filepath.Split(vsock)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		port, ok := strings.CutPrefix(e.Name(), prefix+"_")
		if ok && e.Type() == fs.ModeSocket && strings.Trim(port, "0123456789") == "" {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// linkOut gives a socket that the VMM made in its jail a second name outside.
// No guest has run yet, but the jail is the VMM's to write: whatever is no
// socket of its own is refused.
func (j *jail) linkOut(name, path string) error {
	if err := unix.Linkat(j.dir, name, unix.AT_FDCWD, path, 0); err != nil {
		return &os.LinkError{Op: "link", Old: name, New: path, Err: err}
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type() != fs.ModeSocket || int(st.Uid) != j.id() {
		return errors.Join(fmt.Errorf("%s in the jail is no socket of the VMM", name), remove(path))
	}
	return nil
}
