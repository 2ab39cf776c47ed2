package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
)

// Prune removes the layers for which keep is false, the disks of images that
// need one of them, and what writers that died have left, and returns the
// bytes freed. A layer that is being added or read for a build at this moment
// stays. A file that a VM has open lives on until it is closed. A nil keep
// keeps every layer.
//
// A layer that was added and is not yet known to keep is not told apart from
// one that nobody wants: the caller holds a lock of its own from before the
// first AddLayer of an image until it has recorded the image.
func (s *Store) Prune(ctx context.Context, keep func(diffID string) bool) (freed int64, err error) {
	freed, err = s.sweep()
	errs := []error{err}
	if keep == nil {
		return freed, err
	}
	names, err := os.ReadDir(filepath.Join(s.dir, layersDir))
	if err != nil {
		return freed, fmt.Errorf("list layers: %w", err)
	}
	for _, e := range names {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		if diffID := "sha256:" + e.Name(); !keep(diffID) {
			n, err := s.removeLayer(e.Name())
			freed += n
			errs = append(errs, err)
		}
	}
	n, err := s.PruneImages(ctx, nil)
	freed += n
	errs = append(errs, err, s.pruneLocks())
	return freed, errors.Join(errs...)
}

// Remove removes layers, and disks of images that need one of them, whoever
// may want them; layers that are not there are no error.
func (s *Store) Remove(ctx context.Context, diffIDs ...string) (freed int64, err error) {
	var errs []error
	for _, d := range diffIDs {
		h, err := parseDiffID(d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n, err := s.removeLayer(h)
		freed += n
		errs = append(errs, err)
	}
	n, err := s.PruneImages(ctx, nil)
	return freed + n, errors.Join(append(errs, err)...)
}

// removeLayer removes a layer unless it is in use by this package.
func (s *Store) removeLayer(hex string) (int64, error) {
	n, err := s.removeObject(hex, s.layerDir(hex))
	if err != nil {
		return n, fmt.Errorf("remove layer %s: %w", hex, err)
	}
	return n, nil
}

// removeObject moves a directory away, under its lock, and deletes it there:
// it is gone at once or not at all, and after a crash sweep ends the work.
func (s *Store) removeObject(name, dir string) (freed int64, err error) {
	lock, err := s.tryLock(name, unix.LOCK_EX)
	if errors.Is(err, errBusy) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer lock.Close()
	defer os.Remove(lock.Name()) // while it is held: see lock
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if freed, err = diskUsage(dir); err != nil {
		return 0, err
	}
	work, err := s.newWorkDir()
	if err != nil {
		return 0, err
	}
	defer work.discard()
	if err := os.Rename(dir, work.file("removed")); err != nil {
		return 0, err
	}
	failpoint.Here(failpoint.RootfsMoved)
	err = os.RemoveAll(work.path)
	failpoint.Here(failpoint.RootfsUnlocked)
	return freed, err
}

// PruneImages removes the disks of images for which keep is false, of images
// with a layer that is gone, and damaged ones, and returns the bytes freed.
// EnsureImage can build them again. A nil keep keeps what is whole.
func (s *Store) PruneImages(ctx context.Context, keep func(diffIDs []string) bool) (freed int64, err error) {
	names, err := os.ReadDir(filepath.Join(s.dir, imagesDir))
	if err != nil {
		return 0, fmt.Errorf("list images: %w", err)
	}
	var errs []error
	for _, e := range names {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		info, err := s.imageInfo(e.Name())
		if err == nil && s.hasLayers(info.DiffIDs) && (keep == nil || keep(info.DiffIDs)) {
			continue
		}
		n, err := s.removeObject(e.Name(), s.imageDir(e.Name()))
		freed += n
		if err != nil {
			errs = append(errs, fmt.Errorf("remove image %s: %w", e.Name(), err))
		}
	}
	return freed, errors.Join(errs...)
}

func (s *Store) hasLayers(diffIDs []string) bool {
	for _, d := range diffIDs {
		if !s.HasLayer(d) {
			return false
		}
	}
	return true
}

// pruneLocks removes the lock files of writers that died before their object
// was there; the others remove theirs.
func (s *Store) pruneLocks() error {
	names, err := os.ReadDir(filepath.Join(s.dir, locksDir))
	if err != nil {
		return fmt.Errorf("list locks: %w", err)
	}
	for _, e := range names {
		if isDir(s.layerDir(e.Name())) || isDir(s.imageDir(e.Name())) {
			continue
		}
		lock, err := s.tryLock(e.Name(), unix.LOCK_EX)
		if errors.Is(err, errBusy) {
			continue
		} else if err != nil {
			return err
		}
		os.Remove(lock.Name())
		lock.Close()
	}
	return nil
}

func isDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}
