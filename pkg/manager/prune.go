package manager

import (
	"context"
	"errors"
	"slices"

	"github.com/micropod/micropod/pkg/image"
)

// PrunedImages says what PruneImages removed.
type PrunedImages struct {
	Untagged, Deleted []string
	// Freed is in bytes: layers and documents, and disks made of them.
	Freed int64
}

// PruneImages removes the images that choose picks and that no container is made
// of. One that is pulled, pushed or started just now stays.
func (m *Manager) PruneImages(ctx context.Context, choose func(Image) bool) (PrunedImages, error) {
	var done PrunedImages
	list, _ := m.images.List()
	for _, img := range list {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		if !choose(*newImage(img)) || len(m.users(img.ID)) > 0 {
			continue
		}
		if err := m.pruneImage(ctx, img, &done); err != nil {
			return done, imageError(err)
		}
	}
	if len(done.Deleted) == 0 {
		return done, nil
	}
	freed, err := m.pruneDisks(ctx)
	done.Freed += freed
	return done, err
}

// pruneImage removes an image name by name and without force, so that whoever
// has begun to use it meanwhile keeps it.
func (m *Manager) pruneImage(ctx context.Context, img *image.Image, done *PrunedImages) error {
	// By its id at last: digests of other repositories may be left.
	for _, ref := range append(slices.Clone(img.Names), img.ID) {
		r, err := m.images.Remove(ctx, ref, m.users, false)
		if errors.Is(err, image.ErrConflict) || errors.Is(err, image.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		done.Untagged = append(done.Untagged, r.Untagged...)
		done.Deleted = append(done.Deleted, r.Deleted...)
		done.Freed += r.Freed
	}
	return nil
}
