package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Folders of modules in the initramfs, besides moduleDir itself. The host decides
// what belongs where (initramfs.go of package manager).
const (
	lateModules   = "late"   // drivers of what differs from VM to VM
	serialModules = "serial" // where there is virtio-serial
	vsockModules  = "vsock"  // where there is none
	netModules    = "net"    // where there is a network device
	diskModules   = "disk"   // when a disk comes over the channel
	tapModules    = "tap"    // when a network device does
)

// modules are the kernel modules that the initramfs brings.
type modules struct {
	root  *os.File
	later map[string]*os.File // folders that wait for their time, once it is sealed
}

// openModules keeps the initramfs within reach: it is under another root before
// the last module is loaded.
func openModules() (*modules, error) {
	root, err := os.Open("/")
	if err != nil {
		return nil, fmt.Errorf("open initramfs: %w", err)
	}
	return &modules{root: root}, nil
}

// path of the initramfs, once /proc is mounted.
func (m *modules) path() string { return fmt.Sprintf("/proc/self/fd/%d", m.root.Fd()) }

// load loads one more folder.
func (m *modules) load(dir string) error {
	return loadModules(filepath.Join(m.path(), moduleDir, dir))
}

// seal ends the loading and makes the initramfs read-only, so that nothing in
// the guest can overwrite the agent.
func (m *modules) seal() error {
	if err := unix.Mount("", m.path(), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make initramfs read-only: %w", err)
	}
	if err := m.openLater(); err != nil {
		return err
	}
	return m.root.Close()
}

// openLater keeps within reach what is loaded later, or never.
func (m *modules) openLater() error {
	m.later = make(map[string]*os.File)
	for _, dir := range []string{diskModules, tapModules} {
		f, err := os.Open(filepath.Join(m.path(), moduleDir, dir))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		m.later[dir] = f
	}
	return nil
}

// loadLater loads a folder of those that openLater has found, with parameters. Nothing of
// the initramfs can be changed by then, so a signature is not cut off. A parameter that
// a module does not know is nothing to it. Idempotent, and safe for concurrent use.
func (m *modules) loadLater(dir, parameters string) error {
	f, there := m.later[dir]
	if !there {
		return nil
	}
	names, err := filepath.Glob(fmt.Sprintf("/proc/self/fd/%d/*.ko", f.Fd()))
	if err != nil {
		return err
	}
	for _, name := range names { // Glob sorts
		if err := insertModule(name, parameters); err != nil {
			return fmt.Errorf("load module %s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// loadModules loads the *.ko files of dir in the order of their names. All are
// tried: which one is really needed shows later.
func loadModules(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names { // Glob sorts
		if err := loadModule(name); err != nil {
			errs = append(errs, fmt.Errorf("load module %s: %w", filepath.Base(name), err))
		}
		os.Remove(name) // gives the memory back
	}
	return errors.Join(errs...)
}

// loadModule inserts a module without its signature, and with it only where the
// kernel insists. To check one is a public-key operation, which an emulated CPU
// takes longer over than over all else that the agent does before its first
// call. It would prove nothing: the kernel that checks comes from where the
// module does, by the same way. A kernel that loads one calls itself tainted (E).
func loadModule(name string) error {
	signature, err := cutSignature(name)
	if err != nil {
		return err
	}
	err = insertModule(name, "")
	if len(signature) == 0 || !errors.Is(err, unix.EKEYREJECTED) && !errors.Is(err, unix.EPERM) {
		return err
	}
	if err := appendTo(name, signature); err != nil {
		return err
	}
	return insertModule(name, "")
}

func insertModule(name, parameters string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), parameters, 0); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func appendTo(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// A signed module ends with the signature, a struct module_signature whose last
// four bytes are the signature's length, big endian, and this text
// (include/linux/module_signature.h).
const (
	signatureMark   = "~Module signature appended~\n"
	signatureStruct = 12
)

// cutSignature cuts the signature, with all that belongs to it, off a module
// and returns it.
func cutSignature(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // a file that is open for writing is not inserted
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	tail := make([]byte, signatureStruct+len(signatureMark))
	at := info.Size() - int64(len(tail))
	if at < 0 {
		return nil, nil
	}
	if _, err := f.ReadAt(tail, at); err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint32(tail[signatureStruct-4:]))
	if string(tail[signatureStruct:]) != signatureMark || length > at {
		return nil, nil
	}
	signature := make([]byte, length, length+int64(len(tail)))
	if _, err := f.ReadAt(signature, at-length); err != nil {
		return nil, err
	}
	return append(signature, tail...), f.Truncate(at - length)
}
