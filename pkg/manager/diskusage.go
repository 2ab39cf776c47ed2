package manager

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/micropod/micropod/pkg/rootfs"
)

// DiskUsage is what images and containers take on the disk: blocks, since files
// are sparse, and what several share once.
type DiskUsage struct {
	Images     []ImageUse
	Containers []ContainerUse
	// ImagesSize is all that images take. ImagesFree of it no container needs.
	ImagesSize, ImagesFree int64
}

// ImageUse is an image with what its layers, and the disk made of them, take.
type ImageUse struct {
	Image
	Shared, Unique int64 // bytes: with other images, and its own
	Containers     int   // made of it
}

// ContainerUse is a container with what its files take: writable disk and logs.
type ContainerUse struct {
	Container
	Size int64 // bytes
}

// DiskUsage measures images and containers. What is broken is left out of the
// lists, and is in the sums.
func (m *Manager) DiskUsage(ctx context.Context) (*DiskUsage, error) {
	containers, err := m.List(ctx, ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	stored, err := m.disks.Usage()
	if err != nil {
		return nil, err
	}
	documents, err := blocksBelow(filepath.Join(m.state.Root(), dirImages))
	if err != nil {
		return nil, err
	}
	images, _, err := m.Images(ctx)
	if err != nil {
		return nil, err
	}
	u := &DiskUsage{}
	made := map[string]int{}
	for _, c := range containers {
		size, err := blocksBelow(c.Dir)
		if err != nil {
			return nil, err
		}
		made[c.ImageID]++
		u.Containers = append(u.Containers, ContainerUse{Container: c, Size: size})
	}
	var needed [][]string
	for _, c := range m.configs {
		needed = append(needed, c.DiffIDs)
	}
	p := newParts(stored)
	u.ImagesSize = documents + stored.Other + p.total()
	u.ImagesFree = p.total() - p.of(needed...)
	u.Images = p.uses(images, made)
	return u, nil
}

// parts are what images consist of, with their sizes: layers, and the disks
// made of lists of layers.
type parts map[string]int64

const diskPart = "disk "

func newParts(u rootfs.Usage) parts {
	p := parts{}
	for diffID, size := range u.Layers {
		p[diffID] = size
	}
	for _, img := range u.Images {
		p[diskPart+strings.Join(img.DiffIDs, " ")] += img.Size
	}
	return p
}

func (p parts) total() (sum int64) {
	for _, size := range p {
		sum += size
	}
	return sum
}

// keys are the parts of the image with these layers, each once.
func (p parts) keys(diffIDs []string) map[string]bool {
	keys := map[string]bool{diskPart + strings.Join(diffIDs, " "): true}
	for _, d := range diffIDs {
		keys[d] = true
	}
	return keys
}

// of is what several lists of layers take together.
func (p parts) of(lists ...[]string) (sum int64) {
	seen := map[string]bool{}
	for _, diffIDs := range lists {
		for key := range p.keys(diffIDs) {
			if !seen[key] {
				sum += p[key]
			}
			seen[key] = true
		}
	}
	return sum
}

// uses tells for each image what it shares with others.
func (p parts) uses(images []Image, made map[string]int) []ImageUse {
	users := map[string]int{}
	for _, img := range images {
		for key := range p.keys(img.DiffIDs) {
			users[key]++
		}
	}
	var out []ImageUse
	for _, img := range images {
		u := ImageUse{Image: img, Containers: made[img.ID]}
		for key := range p.keys(img.DiffIDs) {
			if users[key] > 1 {
				u.Shared += p[key]
			} else {
				u.Unique += p[key]
			}
		}
		out = append(out, u)
	}
	return out
}

// blocksBelow is what a file takes on the disk, or those below a directory: sparse
// ones less than their size. What goes meanwhile is left out.
func blocksBelow(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				st, _ := info.Sys().(*syscall.Stat_t)
				sum += st.Blocks * 512
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return sum, nil
}
