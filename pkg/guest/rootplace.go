package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// rootPlace are the folders of one root file system.
type rootPlace struct {
	Image    string // the read-only image
	Writable string // the writable disk
	Root     string // the overlay of both: the container's root
}

// firstPlace is that of the guest's first container.
func firstPlace() rootPlace { return rootPlace{Image: imageDir, Writable: rwDir, Root: rootDir} }

// placeIn is that of one more container, below a folder of its own.
func placeIn(dir string) rootPlace {
	return rootPlace{
		Image: filepath.Join(dir, "image"), Writable: filepath.Join(dir, "rw"), Root: filepath.Join(dir, "root"),
	}
}

// folders are the mounts of a place, in the order in which they can be unmounted.
func (p rootPlace) folders() []string { return []string{p.Root, p.Writable, p.Image} }

// upper is what the container has changed.
func (p rootPlace) upper() string { return p.Writable + "/upper" }

// mounts are the steps that make a root file system, and their names.
func (p rootPlace) mounts(r api.Root) []namedStep {
	return []namedStep{
		{"image", func() error { return p.mountImage(r) }},
		{"disk", func() error { return p.mountWritable(r.Writable) }},
		{"overlay", func() error { return p.overlayMount().mount() }},
	}
}

// namedStep is one step of what the agent is asked for.
type namedStep struct {
	name string
	run  func() error
}

// runNamed runs steps, and tells which one failed.
func runNamed(p *phases, steps []namedStep) error {
	for _, s := range steps {
		if err := s.run(); err != nil {
			return internal(s.name, err)
		}
		p.mark(s.name)
	}
	return nil
}

// checkRoot refuses disks that are none.
func checkRoot(r api.Root) error {
	if r.Format != "erofs" && r.Format != "ext4" {
		return invalid("setup", "image format %q", api.Clean(r.Format, 32))
	}
	if len(r.Devices) == 0 || len(r.Devices) > 256 {
		return invalid("setup", "%d image devices", len(r.Devices))
	}
	if r.Format == "ext4" && len(r.Devices) > 1 {
		return invalid("setup", "an ext4 image has one device, not %d", len(r.Devices))
	}
	for _, d := range r.Devices {
		if !isDisk(d) {
			return invalid("setup", "image device %q is no disk", api.Clean(d, 64))
		}
	}
	if r.Writable != "" && !isDisk(r.Writable) {
		return invalid("setup", "writable device %q is no disk", api.Clean(r.Writable, 64))
	}
	return nil
}

// isDisk reports whether dev is /dev/vd and one to three lower-case letters, a
// virtio disk, or /dev/nbd and one to three digits, one of PurposeDisk. It becomes
// a mount option, where a comma would begin another.
func isDisk(dev string) bool {
	for prefix, alphabet := range map[string]string{"/dev/vd": "abcdefghijklmnopqrstuvwxyz", "/dev/nbd": "0123456789"} {
		name, ok := strings.CutPrefix(dev, prefix)
		if ok && len(name) >= 1 && len(name) <= 3 && strings.Trim(name, alphabet) == "" {
			return true
		}
	}
	return false
}

// imageMount is the mount of the image's read-only disks: a pure function.
func (p rootPlace) imageMount(r api.Root) guestMount {
	m := guestMount{source: r.Devices[0], target: p.Image, fstype: r.Format, flags: unix.MS_RDONLY}
	var opts []string
	for _, d := range r.Devices[1:] {
		opts = append(opts, "device="+d)
	}
	m.data = strings.Join(opts, ",")
	return m
}

func (p rootPlace) mountImage(r api.Root) error {
	if err := p.imageMount(r).mount(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(r.Devices, ", "), err)
	}
	return nil
}

// mountWritable mounts the disk of the overlay's upper layer. It is never
// checked or repaired: its journal is all that a crash needs.
func (p rootPlace) mountWritable(dev string) error {
	m := guestMount{source: dev, target: p.Writable, fstype: "ext4"}
	if dev == "" {
		m = guestMount{source: "tmpfs", target: p.Writable, fstype: "tmpfs", data: "mode=0755"}
	}
	err := m.mount()
	if errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("the writable disk %s is damaged: %w", dev, err)
	}
	if err != nil {
		return fmt.Errorf("writable disk %s: %w", dev, err)
	}
	for _, dir := range []string{p.upper(), p.Writable + "/work"} {
		// Explicitly 0755 root:root: the upper layer's root is what a
		// container sees as /, whatever the image's layers say.
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("prepare the writable disk: %w", err)
		}
	}
	return nil
}

// overlayMount is docker's overlay: redirects and metacopy off, so that the
// upper layer alone is the exact difference to the image.
func (p rootPlace) overlayMount() guestMount {
	return guestMount{
		source: "overlay", target: p.Root, fstype: "overlay",
		data: "lowerdir=" + p.Image + ",upperdir=" + p.upper() + ",workdir=" + p.Writable + "/work" +
			",index=off,metacopy=off,redirect_dir=off",
	}
}

// unmount writes the writable disk back and unmounts all. What is mounted no more,
// or was not yet, is no error.
//
// Each container's stage begins with copies of all mounts, and an operation on files
// may keep them: they go when the folder goes that they are on, in all namespaces
// (the kernel's detach_mounts, of rmdir). Else those would hold the disks.
func (p rootPlace) unmount() error {
	errs := []error{syncDir(p.Writable)}
	for _, dir := range p.folders() {
		err := unix.Unmount(dir, 0)
		if errors.Is(err, unix.EBUSY) {
			// Nobody new can come to it, and what is written is on the disk.
			err = errors.Join(fmt.Errorf("unmount %s: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
		}
		if !notMounted(err) {
			errs = append(errs, err)
		}
		errs = append(errs, removeFolder(dir))
	}
	return errors.Join(errs...)
}

// putAway writes the writable disk back and unmounts what nobody uses: what is busy
// is written all the same.
func (p rootPlace) putAway() {
	_ = syncDir(p.Writable)
	for _, dir := range p.folders() {
		_ = unix.Unmount(dir, 0)
	}
}

// removeFolder removes an empty folder, if it is there.
func removeFolder(dir string) error {
	if err := os.Remove(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func notMounted(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT)
}

// syncDir writes back the file system that a folder is on.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write %s back: %w", dir, err)
	}
	return nil
}
