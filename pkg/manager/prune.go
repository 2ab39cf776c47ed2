package manager

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
)

// PrunedContainers says what PruneContainers removed.
type PrunedContainers struct {
	Deleted []string // ids
	Freed   int64    // bytes
}

// PruneContainers removes the containers that choose picks and that do not run.
func (m *Manager) PruneContainers(ctx context.Context, choose func(Container) bool) (PrunedContainers, error) {
	var done PrunedContainers
	list, err := m.List(ctx, ListOptions{All: true})
	if err != nil {
		return done, err
	}
	for _, c := range list {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		if c.State != StateCreated && c.State != StateExited || !choose(c) {
			continue
		}
		size, _ := blocksBelow(c.Dir) // what cannot be measured can go all the same
		err := m.removeUnused(c.ID)
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
			continue // it is in use, or somebody else has removed it
		}
		if err != nil {
			return done, err
		}
		done.Deleted, done.Freed = append(done.Deleted, c.ID), done.Freed+size
	}
	m.tell(events.Container(events.ActionPrune, events.Subject{}, "reclaimed", strconv.FormatInt(done.Freed, 10)))
	return done, nil
}

// removeUnused is Remove, but waits for nobody: the error wraps ErrConflict if
// somebody holds the container's lock.
func (m *Manager) removeUnused(id string) error {
	vm, err := m.resolve(id)
	if err != nil {
		return err
	}
	lock, err := m.state.Lock(vm.ID)
	return m.removeTaken(vm, lock, err, false)
}

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
	// What a removal or a pull that died has left goes as well.
	freed, err := m.images.GC(ctx)
	if err != nil {
		m.log.Warn("images are pruned, not all that they leave", "err", err)
	}
	disks, err := m.pruneDisks(ctx)
	done.Freed += freed + disks
	m.tell(events.Image(events.ActionPrune, events.Subject{}, "reclaimed", strconv.FormatInt(done.Freed, 10)))
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
		m.tellRemoved(r)
		done.Untagged = append(done.Untagged, r.Untagged...)
		done.Deleted = append(done.Deleted, r.Deleted...)
		done.Freed += r.Freed
	}
	return nil
}
