package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/ledger"
)

// Check finds what Prune with the same keep would remove: what writers that died
// have left, layers that nobody keeps, and disks that cannot be used. What is
// being written or read at this moment is not among it. The findings' repair
// removes what the dead have left and damaged disks; layers are the caller's to
// remove, who knows when an answer of keep has become old.
func (s *Store) Check(keep func(diffID string) bool) ([]ledger.Finding, error) {
	work, err := s.checkWork()
	if err != nil {
		return nil, err
	}
	locks, err := s.checkLocks()
	if err != nil {
		return nil, err
	}
	layers, err := s.checkLayers(keep)
	if err != nil {
		return nil, err
	}
	images, err := s.checkImages()
	return append(append(append(work, locks...), layers...), images...), err
}

func (s *Store) checkWork() ([]ledger.Finding, error) {
	return s.checkDir(tmpDir, func(name, path string) *ledger.Finding {
		if !abandoned(path) {
			return nil
		}
		return &ledger.Finding{Kind: ledger.Directory, Problem: "its writer has died",
			Repair: func(context.Context) error { _, err := sweepOne(path); return err }}
	})
}

// abandoned reports that a work directory is there and nobody holds its lock.
func abandoned(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	current, err := flockCurrent(f, path, unix.LOCK_EX)
	return current && err == nil
}

func (s *Store) checkLocks() ([]ledger.Finding, error) {
	return s.checkDir(locksDir, func(name, path string) *ledger.Finding {
		if isDir(s.layerDir(name)) || isDir(s.imageDir(name)) || !abandoned(path) {
			return nil
		}
		return &ledger.Finding{Kind: ledger.Lock, Problem: "its holder has died, and there is nothing that it is for",
			Repair: func(context.Context) error { return s.pruneLocks() }}
	})
}

func (s *Store) checkLayers(keep func(diffID string) bool) ([]ledger.Finding, error) {
	return s.checkDir(layersDir, func(name, path string) *ledger.Finding {
		if keep("sha256:"+name) || s.busy(name) {
			return nil
		}
		return &ledger.Finding{Kind: ledger.Directory, Problem: "a layer of no image and no container"}
	})
}

func (s *Store) checkImages() ([]ledger.Finding, error) {
	return s.checkDir(imagesDir, func(name, path string) *ledger.Finding {
		info, err := s.imageInfo(name)
		if err == nil && s.hasLayers(info.DiffIDs) || s.busy(name) {
			return nil
		}
		return &ledger.Finding{Kind: ledger.Directory, Problem: "a disk that is damaged, or whose layers are gone",
			Repair: func(ctx context.Context) error { _, err := s.PruneImages(ctx, nil); return err }}
	})
}

// Unused lists the directories of the disks that PruneImages with the same keep
// would remove, of those that are whole.
func (s *Store) Unused(keep func(diffIDs []string) bool) ([]string, error) {
	var paths []string
	_, err := s.checkDir(imagesDir, func(name, path string) *ledger.Finding {
		info, err := s.imageInfo(name)
		if err == nil && s.hasLayers(info.DiffIDs) && !keep(info.DiffIDs) && !s.busy(name) {
			paths = append(paths, path)
		}
		return nil
	})
	return paths, err
}

// busy reports that somebody works on a layer or an image.
func (s *Store) busy(name string) bool {
	f, err := os.Open(filepath.Join(s.dir, locksDir, name))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(flock(f, unix.LOCK_EX|unix.LOCK_NB), errBusy)
}

// checkDir asks about each entry of a directory of the store.
func (s *Store) checkDir(dir string, ask func(name, path string) *ledger.Finding) ([]ledger.Finding, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return nil, fmt.Errorf("check rootfs store: %w", err)
	}
	var found []ledger.Finding
	for _, e := range entries {
		path := filepath.Join(s.dir, dir, e.Name())
		if f := ask(e.Name(), path); f != nil {
			f.Subject, f.Remedy = path, "remove it"
			found = append(found, *f)
		}
	}
	return found, nil
}
