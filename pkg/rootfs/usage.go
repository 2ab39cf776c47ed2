package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Usage is what a store takes on its disk, in bytes.
type Usage struct {
	Layers map[string]int64 // by diffID
	Images []ImageUsage     // disks that were built of layers
	Other  int64            // locks, and writers at work
}

// ImageUsage is what the disk of one list of layers takes, in one format. A
// damaged one has no DiffIDs.
type ImageUsage struct {
	DiffIDs []string
	Size    int64
}

// Usage measures the store. What comes and goes meanwhile may be left out.
func (s *Store) Usage() (Usage, error) {
	u := Usage{Layers: map[string]int64{}}
	err := s.measure(layersDir, func(name string, size int64) { u.Layers["sha256:"+name] = size })
	if err != nil {
		return u, err
	}
	err = s.measure(imagesDir, func(name string, size int64) {
		info, err := s.imageInfo(name)
		if err != nil {
			info.DiffIDs = nil
		}
		u.Images = append(u.Images, ImageUsage{DiffIDs: info.DiffIDs, Size: size})
	})
	if err != nil {
		return u, err
	}
	for _, dir := range []string{locksDir, tmpDir} {
		if err := s.measure(dir, func(_ string, size int64) { u.Other += size }); err != nil {
			return u, err
		}
	}
	return u, nil
}

// measure tells what each entry of a directory takes.
func (s *Store) measure(dir string, tell func(name string, size int64)) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return fmt.Errorf("measure rootfs store: %w", err)
	}
	for _, e := range entries {
		size, err := diskUsage(filepath.Join(s.dir, dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has gone just now
		}
		if err != nil {
			return err
		}
		tell(e.Name(), size)
	}
	return nil
}
