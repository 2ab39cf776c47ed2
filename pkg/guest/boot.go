package guest

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Folders of the guest's own root, which no container sees.
const (
	newRoot   = "/newroot"        // becomes / (see switchRoot)
	imageDir  = "/micropod/image" // the read-only image
	rwDir     = "/micropod/rw"    // the writable disk
	rootDir   = "/micropod/root"  // the overlay of both: the container's root
	rootsDir  = "/micropod/roots" // the same three of each further container
	etcDir    = "/micropod/etc"   // files mounted into /etc of containers
	moduleDir = "/modules"        // of the initramfs, see modules
	cgroupDir = "/sys/fs/cgroup"
)

// guestMount is one line of the table of what PID 1 mounts for itself.
type guestMount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	optional               bool // a kernel without it still runs containers
}

func (m guestMount) String() string { return m.fstype + " on " + m.target }

const secure = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// bootMounts is what the agent needs before it can speak with the host.
func bootMounts() []guestMount {
	return []guestMount{
		{"proc", "/proc", "proc", secure, "", false},
		{"sysfs", "/sys", "sysfs", secure, "", false},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755", false},
		{"cgroup2", cgroupDir, "cgroup2", secure, "", false},
	}
}

func (m guestMount) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	if errors.Is(err, unix.EBUSY) { // mounted by the kernel (CONFIG_DEVTMPFS_MOUNT)
		return nil
	}
	if err != nil && !m.optional {
		return fmt.Errorf("mount %s: %w", m, err)
	}
	return nil
}

// switchRoot puts a tmpfs over the initramfs. A process whose root is the
// initramfs itself cannot pivot_root, and containers need that. The program
// stays where it is, held by /proc/self/exe.
func switchRoot() error {
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", newRoot, "tmpfs", secure&^unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount new root: %w", err)
	}
	if err := keepLibraries(); err != nil {
		return err
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// keepLibraries shows the folders of shared libraries in the new root. Only an
// agent that is linked dynamically has them: it is executed again for each
// container, and its interpreter is found by path.
func keepLibraries() error {
	for _, dir := range []string{"/lib", "/lib64", "/usr"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := os.MkdirAll(newRoot+dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
	}
	return nil
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// phases collects named moments.
type phases []api.Phase

func (p *phases) mark(name string) { *p = append(*p, api.Phase{Name: name, At: uptime()}) }

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
