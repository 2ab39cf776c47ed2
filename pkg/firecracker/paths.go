package firecracker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// files are the driver's own names in Config.Dir.
type files struct {
	api string // socket of the API
	log string // FIFO of Firecracker's log
}

func filesIn(dir string) (files, error) {
	f := files{api: filepath.Join(dir, "firecracker.sock"), log: filepath.Join(dir, "firecracker.log")}
	if len(f.api) > maxSunPath {
		return f, fmt.Errorf("socket path %s has %d bytes, a socket can have %d: choose a shorter root directory", f.api, len(f.api), maxSunPath)
	}
	return f, nil
}

// absolute returns c with absolute paths: the VMM runs in /.
func absolute(c vmm.Config) (vmm.Config, error) {
	c.Disks = append([]vmm.Disk(nil), c.Disks...)
	paths := []*string{&c.Kernel, &c.Initrd, &c.VsockPath, &c.ConsolePath, &c.Dir}
	for i := range c.Disks {
		paths = append(paths, &c.Disks[i].Path)
	}
	for _, p := range paths {
		if *p == "" {
			continue // Validate names the field
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return c, err
		}
		*p = abs
	}
	return c, nil
}

// checkFiles looks for what the VMM will open: its own messages name neither
// the file nor what it is for.
func checkFiles(c vmm.Config) error {
	need := []struct{ what, path string }{{"kernel", c.Kernel}, {"initrd", c.Initrd}}
	for i, d := range c.Disks {
		need = append(need, struct{ what, path string }{"disk " + diskName(i), d.Path})
	}
	for _, n := range need {
		info, err := os.Stat(n.path)
		if err != nil {
			return fmt.Errorf("%s: %w", n.what, err)
		}
		// A FIFO would block the VMM, a directory confuse it.
		if m := info.Mode(); !m.IsRegular() && (m&fs.ModeDevice == 0 || m&fs.ModeCharDevice != 0) {
			return fmt.Errorf("%s: %s is neither a file nor a block device", n.what, n.path)
		}
	}
	return nil
}

// removeStaleSocket removes what a killed VMM left at path: Firecracker binds
// no path that exists. A socket that somebody still serves, and anything that
// is no socket, is an error.
func removeStaleSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way: it is no socket", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s is in use by another process", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s: look for its owner: %w", path, err)
	}
	return remove(path)
}

// remove deletes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
