package guest

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountFlag is what a mount option word does to the flags.
type mountFlag struct {
	clear bool
	flag  uintptr
}

// mountFlags are the option words that are flags, mount(8) and the runtime
// spec; every other word is data of the file system.
func mountFlags() map[string]mountFlag {
	return map[string]mountFlag{
		"defaults": {}, "rw": {true, unix.MS_RDONLY}, "ro": {false, unix.MS_RDONLY},
		"suid": {true, unix.MS_NOSUID}, "nosuid": {false, unix.MS_NOSUID},
		"dev": {true, unix.MS_NODEV}, "nodev": {false, unix.MS_NODEV},
		"exec": {true, unix.MS_NOEXEC}, "noexec": {false, unix.MS_NOEXEC},
		"sync": {false, unix.MS_SYNCHRONOUS}, "async": {true, unix.MS_SYNCHRONOUS},
		"dirsync": {false, unix.MS_DIRSYNC}, "remount": {},
		"atime": {true, unix.MS_NOATIME}, "noatime": {false, unix.MS_NOATIME},
		"diratime": {true, unix.MS_NODIRATIME}, "nodiratime": {false, unix.MS_NODIRATIME},
		"relatime": {false, unix.MS_RELATIME}, "norelatime": {true, unix.MS_RELATIME},
		"strictatime": {false, unix.MS_STRICTATIME}, "nostrictatime": {true, unix.MS_STRICTATIME},
		"mand": {false, unix.MS_MANDLOCK}, "nomand": {true, unix.MS_MANDLOCK},
		"private": {}, "rprivate": {}, // what all mounts of the container are
		"nosymfollow": {false, unix.MS_NOSYMFOLLOW}, "symfollow": {true, unix.MS_NOSYMFOLLOW},
	}
}

// parseMountOptions splits options into flags and the file system's data.
func parseMountOptions(options []string) (flags uintptr, data []string, err error) {
	table := mountFlags()
	for _, o := range options {
		switch f, ok := table[o]; {
		case ok && f.clear:
			flags &^= f.flag
		case ok:
			flags |= f.flag
		case o == "" || strings.ContainsAny(o, ",\x00"):
			return 0, nil, fmt.Errorf("mount option %q", o)
		default:
			data = append(data, o)
		}
	}
	return flags, data, nil
}

// containerMount turns a line of the spec into a mount.
func containerMount(m specs.Mount) (guestMount, error) {
	flags, data, err := parseMountOptions(m.Options)
	if err != nil {
		return guestMount{}, err
	}
	out := guestMount{source: m.Source, target: m.Destination, fstype: m.Type, flags: flags}
	switch m.Type {
	case "proc", "sysfs", "devpts", "tmpfs":
	case "mqueue":
		out.optional = true // not in every kernel, and hardly ever used
	case "cgroup", "cgroup2":
		out.fstype, data = "cgroup2", nil
	default:
		return guestMount{}, fmt.Errorf("type %q is not supported", m.Type)
	}
	out.data = strings.Join(data, ",")
	return out, nil
}

func (s *stage) mountAll() error {
	unix.Umask(0)
	for _, m := range s.Spec.Mounts {
		if err := mountOne(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return nil
}

// mountOne mounts one line of the spec. The container's root is this process's
// root already, so a link in the destination leads inside.
func mountOne(m specs.Mount) error {
	if !path.IsAbs(m.Destination) {
		return errors.New("not an absolute path")
	}
	var below unix.Stat_t
	existed := unix.Stat(m.Destination, &below) == nil
	if err := mkdirAll(m.Destination); err != nil {
		return err
	}
	g, err := containerMount(m)
	if err != nil {
		return err
	}
	if existed && takesMode(m) {
		return g.mountAs(below.Mode & 0o7777)
	}
	return g.mountInside()
}

// takesMode reports whether m is a tmpfs without a mode of its own: over a
// directory of the image docker gives it that one's.
func takesMode(m specs.Mount) bool {
	return m.Type == "tmpfs" && !slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "mode=") })
}

// mountAs mounts a tmpfs and gives it a mode, which as an option would show.
func (m guestMount) mountAs(mode uint32) error {
	readOnly := m.flags&unix.MS_RDONLY != 0
	m.flags &^= unix.MS_RDONLY
	if err := m.mountInside(); err != nil {
		return err
	}
	if err := unix.Chmod(m.target, mode); err != nil {
		return err
	}
	if readOnly {
		return remountReadOnly(m.target)
	}
	return nil
}

func (m guestMount) mountInside() error {
	err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	if m.optional && (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", m.fstype, m.data, err)
	}
	return nil
}

// device is a node of /dev.
type device struct {
	path         string
	mode         uint32
	major, minor uint32
	uid, gid     int
}

// defaultDevices is the /dev that every container has.
func defaultDevices() []device {
	return []device{
		{"/dev/null", unix.S_IFCHR | 0o666, 1, 3, 0, 0},
		{"/dev/zero", unix.S_IFCHR | 0o666, 1, 5, 0, 0},
		{"/dev/full", unix.S_IFCHR | 0o666, 1, 7, 0, 0},
		{"/dev/random", unix.S_IFCHR | 0o666, 1, 8, 0, 0},
		{"/dev/urandom", unix.S_IFCHR | 0o666, 1, 9, 0, 0},
		{"/dev/tty", unix.S_IFCHR | 0o666, 5, 0, 0, 0},
	}
}

// deviceLinks are links of every container's /dev: name, target.
func deviceLinks() [][2]string {
	return [][2]string{
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"},
		{"/dev/ptmx", "pts/ptmx"},
		{"/dev/core", "/proc/kcore"},
	}
}

// specDevice reads a device of the spec.
func specDevice(d specs.LinuxDevice) (device, error) {
	out := device{path: d.Path, major: uint32(d.Major), minor: uint32(d.Minor), mode: 0o666}
	switch d.Type {
	case "c", "u":
		out.mode |= unix.S_IFCHR
	case "b":
		out.mode |= unix.S_IFBLK
	case "p":
		out.mode |= unix.S_IFIFO
	default:
		return device{}, fmt.Errorf("device %s of type %q", d.Path, d.Type)
	}
	if d.FileMode != nil {
		out.mode = out.mode&unix.S_IFMT | uint32(*d.FileMode)&0o7777
	}
	if d.UID != nil {
		out.uid = int(*d.UID)
	}
	if d.GID != nil {
		out.gid = int(*d.GID)
	}
	return out, nil
}

func (s *stage) makeDevices() error {
	devices := defaultDevices()
	for _, d := range s.Spec.Linux.Devices {
		dev, err := specDevice(d)
		if err != nil {
			return err
		}
		devices = append(devices, dev)
	}
	for _, d := range devices {
		if err := d.make(); err != nil {
			return fmt.Errorf("make device %s: %w", d.path, err)
		}
	}
	for _, l := range deviceLinks() {
		if err := replace(l[0], func() error { return unix.Symlink(l[1], l[0]) }); err != nil {
			return fmt.Errorf("make link %s: %w", l[0], err)
		}
	}
	return nil
}

func (d device) make() error {
	if err := mkdirAll(path.Dir(d.path)); err != nil {
		return err
	}
	err := replace(d.path, func() error {
		return unix.Mknod(d.path, d.mode, int(unix.Mkdev(d.major, d.minor)))
	})
	if err != nil || d.uid == 0 && d.gid == 0 {
		return err
	}
	return unix.Lchown(d.path, d.uid, d.gid)
}

// replace runs create, and again after removing what is in its way.
func replace(name string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := unix.Unlink(name); err != nil {
		return err
	}
	return create()
}

// bindConsole makes /dev/console the terminal at pts.
func bindConsole(pts string) error {
	const console = "/dev/console"
	err := replace(console, func() error { return unix.Mknod(console, unix.S_IFREG|0o620, 0) })
	if err != nil {
		return fmt.Errorf("make %s: %w", console, err)
	}
	if err := unix.Mount(pts, console, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", console, err)
	}
	return nil
}

// mountFiles puts the guest's files over those of the image in /etc.
func (s *stage) mountFiles() error {
	root, err := openRoot("/")
	if err != nil {
		return err
	}
	defer root.close()
	for name, fd := range s.files {
		if err := root.ensureFile(name); err != nil {
			return fmt.Errorf("prepare %s of the image: %w", name, err)
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount %s: %w", name, err)
		}
		unix.Close(fd)
		// What the guest's own directory of them forbids, docker allows.
		flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RELATIME)
		if s.readOnly() {
			flags |= unix.MS_RDONLY
		}
		if err := unix.Mount("", name, "", flags, ""); err != nil {
			return fmt.Errorf("remount %s: %w", name, err)
		}
	}
	return nil
}

func (s *stage) readOnly() bool { return s.Spec.Root != nil && s.Spec.Root.Readonly }

// protectPaths hides the masked paths and write-protects the read-only ones.
func (s *stage) protectPaths() error {
	for _, p := range s.Spec.Linux.ReadonlyPaths {
		err := unix.Mount(p, p, "", unix.MS_BIND|unix.MS_REC, "")
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = remountReadOnly(p)
		}
		if err != nil {
			return fmt.Errorf("write-protect %s: %w", p, err)
		}
	}
	if len(s.Spec.Linux.MaskedPaths) == 0 {
		return nil
	}
	if err := checkNull(); err != nil {
		return err
	}
	for _, p := range s.Spec.Linux.MaskedPaths {
		err := unix.Mount("/dev/null", p, "", unix.MS_BIND, "")
		if errors.Is(err, unix.ENOTDIR) { // p is a directory
			err = unix.Mount("tmpfs", p, "tmpfs", unix.MS_RDONLY, "size=0k,nr_inodes=2")
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mask %s: %w", p, err)
		}
	}
	return nil
}

// checkNull makes sure that what masks a file is the null device.
func checkNull() error {
	var st unix.Stat_t
	if err := unix.Lstat("/dev/null", &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return errors.New("/dev/null is not the null device")
	}
	return nil
}

func (s *stage) protectRoot() error {
	if !s.readOnly() {
		return nil
	}
	return remountReadOnly("/")
}

// remountReadOnly makes the mount at p read-only and keeps its other flags.
func remountReadOnly(p string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(p, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: p, Err: err}
	}
	// The ST_ values of these flags are the MS_ values; relatime's is not.
	flags := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	if err := unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("remount %s read-only: %w", p, err)
	}
	return nil
}
