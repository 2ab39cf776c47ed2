package manager

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/state"
)

const dirInitramfs = "initramfs"

// fileInitramfsLock keeps a file that is taken into use from being expired at
// the same moment.
const fileInitramfsLock = ".lock"

// moduleGroup is a folder of modules in the initramfs, with the features that
// they are for. The agent loads the first at once, then "serial" where it finds
// virtio-serial, else "vsock", then "late", the drivers that must not look at a
// device before the host is there, and "net" where it finds a network device; "disk"
// and "tap" wait for the first disk, and the first network, that come while the guest
// runs (pkg/guest).
type moduleGroup struct {
	dir      string
	features []kernel.Feature
}

// moduleGroups are what a guest needs from its kernel. Each driver uses its own
// channel to the agent; an initramfs serves both where the kernel can. There is
// no driver for a source of entropy: the host seeds the guest at its setup.
func moduleGroups(k *kernel.Kernel) []moduleGroup {
	base := []kernel.Feature{kernel.VirtioMMIO, kernel.Ext4, kernel.Overlay}
	if diskFormat(k) == rootfs.EROFS {
		base = append(base, kernel.EROFS)
	}
	groups := []moduleGroup{{"", base}, {"late", []kernel.Feature{kernel.VirtioBlk}}}
	for _, g := range []moduleGroup{{"serial", []kernel.Feature{kernel.VirtioConsole}}, {"vsock", []kernel.Feature{kernel.VirtioVsock}}} {
		if k.Support(g.features[0]) != kernel.Missing {
			groups = append(groups, g)
		}
	}
	for _, g := range []moduleGroup{{"net", []kernel.Feature{kernel.VirtioNet}}, {"disk", []kernel.Feature{kernel.NBD}}, {"tap", []kernel.Feature{kernel.Tun}}} {
		if k.Support(g.features[0]) != kernel.Missing {
			groups = append(groups, g)
		}
	}
	return groups
}

// initramfs returns the path of the initramfs for a kernel: the agent and the
// modules that the kernel needs loaded, nothing of any container. It is built
// once for each pair of agent and kernel.
func (m *Manager) initramfs(k *kernel.Kernel) (string, error) {
	agent, err := m.o.Agent()
	if err != nil {
		return "", fmt.Errorf("find guest agent: %w", err)
	}
	dir := filepath.Join(m.state.Root(), dirInitramfs)
	path := filepath.Join(dir, initramfsKey(agent, k)+".cpio")
	if taken, err := takeInitramfs(path); taken || err != nil {
		return path, err
	}
	entries, err := initramfsEntries(agent, k)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create initramfs directory: %w", err)
	}
	if err := expire(dir); err != nil {
		return "", err
	}
	if err := writeInitramfs(path, entries); err != nil {
		return "", fmt.Errorf("write initramfs: %w", err)
	}
	return path, nil
}

// initramfsKey names an initramfs by what goes into it.
func initramfsKey(agent []AgentFile, k *kernel.Kernel) string {
	h := sha256.New()
	fmt.Fprintf(h, "5 %s %v\n", k.Fingerprint(), moduleGroups(k))
	for _, f := range agent {
		fmt.Fprintf(h, "%s %o %d %q\n", f.Name, f.Mode, f.Size, f.Stamp)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func initramfsEntries(agent []AgentFile, k *kernel.Kernel) ([]rootfs.InitEntry, error) {
	var entries []rootfs.InitEntry
	for _, f := range agent {
		entries = append(entries, rootfs.InitEntry{Name: f.Name, Mode: f.Mode, Size: f.Size, Open: f.Open})
	}
	var asked []kernel.Feature
	done := 0
	for _, g := range moduleGroups(k) {
		asked = append(asked, g.features...)
		modules, err := k.Modules(asked...) // of more features: the same ones, then more
		if err != nil {
			return nil, err
		}
		for i, mod := range modules[done:] {
			e, err := moduleEntry(path.Join("modules", g.dir), i, mod)
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
		done = len(modules)
	}
	return entries, nil
}

// moduleEntry is a module, plain; its number is its place in the order of
// loading.
func moduleEntry(dir string, i int, mod kernel.Module) (rootfs.InitEntry, error) {
	content, err := mod.Content()
	if err != nil {
		return rootfs.InitEntry{}, err
	}
	name := path.Join(dir, fmt.Sprintf("%02d-%s.ko", i, mod.Name))
	return rootfs.InitEntry{Name: name, Mode: 0o600, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}, nil
}

// initramfsTemp begins the names of files in the making. Their lock is held.
const initramfsTemp = ".tmp-"

// writeInitramfs writes to a temporary file and renames it into place.
func writeInitramfs(path string, entries []rootfs.InitEntry) error {
	l, err := state.TryLock(filepath.Join(filepath.Dir(path), initramfsTemp+state.NewID()[:16]))
	if err != nil {
		return err
	}
	f := l.File()
	defer l.Unlock()
	defer os.Remove(f.Name())
	if err := errors.Join(rootfs.WriteInitramfs(f, entries), f.Sync()); err != nil {
		return err
	}
	failpoint.Here(failpoint.InitramfsWritten)
	return os.Rename(f.Name(), path)
}

// takeInitramfs makes an initramfs young again, so that nobody removes it before
// a VMM has opened it, and reports whether it is there.
func takeInitramfs(path string) (bool, error) {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); err != nil {
		return false, nil
	}
	lock, err := state.Lock(filepath.Join(dir, fileInitramfsLock))
	if err != nil {
		return false, err
	}
	defer lock.Unlock()
	// The time of change stays: by that a template knows the file again.
	err = os.Chtimes(path, time.Now(), time.Time{})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// lastUse is when a file was taken into use, or made.
func lastUse(info fs.FileInfo) time.Time {
	st := info.Sys().(*syscall.Stat_t)
	return time.Unix(st.Atim.Unix())
}

// expire removes what older agents and kernels left, and half-written files of
// commands that died. What a supervisor holds stays: its restart policy may boot
// from it again. One that another MicroPod still uses is built again.
func expire(dir string) error {
	lock, err := state.Lock(filepath.Join(dir, fileInitramfsLock))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("expire initramfs: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		st, err := e.Info()
		if strings.HasPrefix(e.Name(), initramfsTemp) {
			_ = state.RemoveUnlocked(path) // harmless if it stays
		} else if err == nil && e.Name() != fileInitramfsLock && time.Since(lastUse(st)) > time.Hour {
			if held, err := state.Held(path); err == nil && !held {
				os.Remove(path)
			}
		}
	}
	return nil
}
