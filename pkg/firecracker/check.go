package firecracker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

var _ vmm.Checker = (*Driver)(nil)

// Leftovers lists the cgroups of a jailed VM.
func (d *Driver) Leftovers(id string) ([]string, error) {
	if !d.host.root {
		return nil, nil // nothing was jailed
	}
	in, err := d.host.hierarchies()
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	var left []string
	for _, h := range in {
		if isDir(h.leaf(id)) {
			left = append(left, h.leaf(id))
		}
	}
	return left, nil
}

// Strays lists the leases of user ids that nobody holds.
func (d *Driver) Strays() ([]string, error) {
	if !d.host.root {
		return nil, nil
	}
	entries, err := os.ReadDir(d.host.idLeases())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list leases of user ids: %w", err)
	}
	var left []string
	for _, e := range entries {
		if path := filepath.Join(d.host.idLeases(), e.Name()); isFree(path) {
			left = append(left, path)
		}
	}
	return left, nil
}

// RemoveStrays removes what Strays lists.
func (d *Driver) RemoveStrays() error {
	if !d.host.root {
		return nil
	}
	return sweepLeases(d.host.idLeases())
}

// isFree reports that path is a lock that nobody holds. It makes none.
func isFree(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, now)
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}
