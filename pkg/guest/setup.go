package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

const (
	minToken   = 16
	maxToken   = 256
	maxEntropy = 512
	// clockSlack is how far the guest's clock may be off the message that
	// tells it the time: about what the message needs to arrive.
	clockSlack = 20 * time.Millisecond
)

type setupState int

const (
	notSetUp setupState = iota
	settingUp
	setUp
)

// setup prepares the guest for containers. It works once: a second call, even
// after a failed first one, is refused.
func (a *agent) setup(r api.SetupRequest) (api.SetupReply, error) {
	if err := checkSetup(r); err != nil {
		return api.SetupReply{}, err
	}
	a.mu.Lock()
	first := a.state == notSetUp
	if first {
		a.state = settingUp
	}
	a.mu.Unlock()
	if !first {
		return api.SetupReply{}, invalid("setup", "the guest is set up already")
	}
	var p phases
	steps := []struct {
		name string
		run  func() error
	}{
		{"clock", func() error { return setClock(r.Now) }},
		{"entropy", func() error { return addEntropy(r.Entropy) }},
		{"devices", virtioBus(busDir).release},
		{"network", func() error { return a.nics.setUp(r.NICs) }},
		{"sysctl", func() error { return writeSysctls("/proc/sys", r.Sysctls) }},
		{"image", func() error { return mountImage(r.Root) }},
		{"disk", func() error { return mountWritable(r.Root.Writable) }},
		{"overlay", mountOverlay},
	}
	for _, s := range steps {
		if err := s.run(); err != nil {
			return api.SetupReply{}, internal(s.name, err)
		}
		p.mark(s.name)
	}
	a.mu.Lock()
	a.token, a.state = r.Token, setUp
	a.mu.Unlock()
	return api.SetupReply{Phases: p}, nil
}

func checkSetup(r api.SetupRequest) error {
	if len(r.Token) < minToken || len(r.Token) > maxToken {
		return invalid("setup", "token of %d bytes", len(r.Token))
	}
	if len(r.Entropy) > maxEntropy {
		return invalid("setup", "%d bytes of entropy, at most %d", len(r.Entropy), maxEntropy)
	}
	if len(r.NICs) > api.MaxNICs {
		return invalid("setup", "%d network devices, at most %d", len(r.NICs), api.MaxNICs)
	}
	if r.Root.Format != "erofs" && r.Root.Format != "ext4" {
		return invalid("setup", "image format %q", api.Clean(r.Root.Format, 32))
	}
	if len(r.Root.Devices) == 0 || len(r.Root.Devices) > 256 {
		return invalid("setup", "%d image devices", len(r.Root.Devices))
	}
	if r.Root.Format == "ext4" && len(r.Root.Devices) > 1 {
		return invalid("setup", "an ext4 image has one device, not %d", len(r.Root.Devices))
	}
	for _, d := range r.Root.Devices {
		if !isDisk(d) {
			return invalid("setup", "image device %q is no virtio disk", api.Clean(d, 64))
		}
	}
	if r.Root.Writable != "" && !isDisk(r.Root.Writable) {
		return invalid("setup", "writable device %q is no virtio disk", api.Clean(r.Root.Writable, 64))
	}
	return nil
}

// isDisk reports whether dev is /dev/vd and one to three lower-case letters.
// It becomes a mount option, where a comma would begin another.
func isDisk(dev string) bool {
	name, ok := strings.CutPrefix(dev, "/dev/vd")
	return ok && len(name) >= 1 && len(name) <= 3 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") == ""
}

func setClock(now time.Time) error {
	if now.IsZero() {
		return nil
	}
	if d := time.Until(now); d < clockSlack && d > -clockSlack {
		return nil
	}
	ts := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock to %s: %w", now.Format(time.RFC3339), err)
	}
	return nil
}

// addEntropy mixes b into the kernel's pool and credits it in full: random(4),
// struct rand_pool_info.
func addEntropy(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(b)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(b)))
	info = append(info, b...)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0]))); e != 0 {
		return fmt.Errorf("credit %d bytes of entropy: %w", len(b), e)
	}
	// A guest that goes on from a template would have the random numbers of all
	// others from it until the kernel uses the pool of its own accord. ENODATA:
	// nothing was generated yet.
	if err := unix.IoctlSetInt(int(f.Fd()), unix.RNDRESEEDCRNG, 0); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("use the entropy: %w", err)
	}
	return nil
}

// writeSysctls sets kernel parameters below dir, a /proc/sys. Keys are dotted,
// or use slashes where a name holds a dot, as sysctl(8) has it.
func writeSysctls(dir string, sysctls map[string]string) error {
	for key, value := range sysctls {
		path, err := sysctlPath(key)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, path), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return fmt.Errorf("set sysctl %s: %w", key, errors.Unwrap(err))
		}
		_, err = f.WriteString(value)
		f.Close()
		if err != nil {
			return fmt.Errorf("set sysctl %s to %q: %w", key, value, errors.Unwrap(err))
		}
	}
	return nil
}

func sysctlPath(key string) (string, error) {
	path := key
	if !strings.Contains(key, "/") {
		path = strings.ReplaceAll(key, ".", "/")
	}
	if !filepath.IsLocal(path) || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("sysctl %q: bad name", api.Clean(key, 128))
	}
	return path, nil
}

// imageMount is the mount of the image's read-only disks: a pure function.
func imageMount(r api.Root) guestMount {
	m := guestMount{source: r.Devices[0], target: imageDir, fstype: r.Format, flags: unix.MS_RDONLY}
	var opts []string
	for _, d := range r.Devices[1:] {
		opts = append(opts, "device="+d)
	}
	m.data = strings.Join(opts, ",")
	return m
}

func mountImage(r api.Root) error {
	m := imageMount(r)
	if err := m.mount(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(r.Devices, ", "), err)
	}
	return nil
}

// mountWritable mounts the disk of the overlay's upper layer. It is never
// checked or repaired: its journal is all that a crash needs.
func mountWritable(dev string) error {
	m := guestMount{source: dev, target: rwDir, fstype: "ext4"}
	if dev == "" {
		m = guestMount{source: "tmpfs", target: rwDir, fstype: "tmpfs", data: "mode=0755"}
	}
	err := m.mount()
	if errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("the writable disk %s is damaged: %w", dev, err)
	}
	if err != nil {
		return fmt.Errorf("writable disk %s: %w", dev, err)
	}
	for _, dir := range []string{rwDir + "/upper", rwDir + "/work"} {
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
func overlayMount() guestMount {
	return guestMount{
		source: "overlay", target: rootDir, fstype: "overlay",
		data: "lowerdir=" + imageDir + ",upperdir=" + rwDir + "/upper,workdir=" + rwDir + "/work" +
			",index=off,metacopy=off,redirect_dir=off",
	}
}

func mountOverlay() error { return overlayMount().mount() }
