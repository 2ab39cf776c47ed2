package inside

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountPoint is a mount. Its directory is made where it is absent.
type mountPoint struct {
	source, target, fs string
	flags              uintptr
	data               string
}

func (m mountPoint) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	switch m.fs {
	case directory:
		return nil
	case commonDirectory:
		return unix.Chmod(m.target, 0o777|unix.S_ISVTX)
	}
	if err := unix.Mount(m.source, m.target, m.fs, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	const readOnlyBind = unix.MS_BIND | unix.MS_RDONLY
	if m.flags&readOnlyBind != readOnlyBind {
		return nil
	}
	// The flag counts only when the bind is there.
	if err := unix.Mount("", m.target, "", unix.MS_REMOUNT|readOnlyBind, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", m.target, err)
	}
	return nil
}

// These stand for the file system where there is nothing to mount: a directory
// only, of root's or for everybody as /tmp is.
const (
	directory       = "-"
	commonDirectory = "+"
)

// early is what loading modules needs.
func early() []mountPoint {
	return []mountPoint{
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"},
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
	}
}

const (
	newRoot = "/new"
	ninep   = "trans=virtio,version=9p2000.L,msize=524288"
)

// root is the new root: the machine's own directory tree below a layer of
// memory, and fresh file systems where programs expect to write. /tmp and
// /var/tmp are on a disk, since tests put disks there, and the jailer devices.
func root(c Config) []mountPoint {
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	list := []mountPoint{
		// Nothing that matters changes below it: the client may cache.
		{"root", "/lower", "9p", unix.MS_RDONLY, ninep + ",cache=loose"},
		{"tmpfs", "/upper", "tmpfs", 0, "mode=755,size=50%"},
		{"", "/upper/work", directory, 0, ""},
		{"", "/upper/files", directory, 0, ""},
		{"overlay", newRoot, "overlay", 0, "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work"},
		{"/dev/vda", "/scratch", "ext4", unix.MS_NOATIME, ""},
		{"", "/scratch/tmp", commonDirectory, 0, ""},
		{"", "/scratch/var", commonDirectory, 0, ""},
		{"/scratch/tmp", newRoot + "/tmp", "", unix.MS_BIND, ""},
		{"/scratch/var", newRoot + "/var/tmp", "", unix.MS_BIND, ""},
		{"/dev", newRoot + "/dev", "", unix.MS_MOVE, ""},
		{"devpts", newRoot + "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,ptmxmode=666,gid=5"},
		{"tmpfs", newRoot + "/dev/shm", "tmpfs", safe, "mode=1777"},
		{"/proc", newRoot + "/proc", "", unix.MS_MOVE, ""},
		{"/sys", newRoot + "/sys", "", unix.MS_MOVE, ""},
		{"cgroup2", newRoot + "/sys/fs/cgroup", "cgroup2", safe | unix.MS_NOEXEC, ""},
		{"tmpfs", newRoot + "/run", "tmpfs", safe, "mode=755"},
	}
	for _, path := range c.Show {
		list = append(list, mountPoint{"/lower" + path, newRoot + path, "", unix.MS_BIND | unix.MS_RDONLY, ""})
	}
	for tag, path := range c.Writable {
		list = append(list, mountPoint{tag, newRoot + path, "9p", safe, ninep + ",cache=none"})
	}
	return list
}
