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
	steps := []namedStep{
		{"clock", func() error { return setClock(r.Now) }},
		{"entropy", func() error { return addEntropy(r.Entropy) }},
		{"devices", virtioBus(busDir).release},
		{"network", func() error { return a.nics.setUp(r.NICs) }},
		{"sysctl", func() error { return writeSysctls("/proc/sys", r.Sysctls) }},
	}
	if err := runNamed(&p, append(steps, firstPlace().mounts(r.Root)...)); err != nil {
		return api.SetupReply{}, err
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
	return checkRoot(r.Root)
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
