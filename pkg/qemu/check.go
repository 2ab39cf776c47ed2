package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

var _ vmm.TemplateKeeper = (*Driver)(nil)

// StrayTemplates lists what is left of templates whose makers died.
func (d *Driver) StrayTemplates(dir string) (left []string, err error) {
	err = templates{dir}.strays(func(path string) error {
		left = append(left, path)
		return nil
	})
	return left, err
}

// RemoveStrayTemplates removes that.
func (d *Driver) RemoveStrayTemplates(dir string) error { return templates{dir}.strays(os.Remove) }

// strays calls do for every temporary file, unless a template is being made: who
// makes one holds the lock from before it has a file.
func (t templates) strays(do func(path string) error) error {
	lock, err := os.OpenFile(filepath.Join(t.dir, ".lock"), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // none was ever made
	}
	if err != nil {
		return fmt.Errorf("check templates: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil
	}
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return fmt.Errorf("check templates: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			errs = append(errs, do(filepath.Join(t.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
