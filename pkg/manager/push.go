package manager

import (
	"context"
	"fmt"
	"slices"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
)

// PushImage uploads the image of a name to the registry that the name says, and
// returns the digest and size of its manifest there. An image that is not for
// platform is an error; "" takes any.
func (m *Manager) PushImage(ctx context.Context, ref, platform string, p Progress) (digest string, size int64, err error) {
	done, err := m.images.Push(ctx, ref, image.PushOptions{Platform: platform, Progress: p})
	if err != nil {
		return "", 0, imageError(err)
	}
	if img, err := m.images.Get(ref); err == nil {
		m.tellTransfer(events.ActionPush, ref, img)
	}
	return done.Digest, done.Size, nil
}

// Tags returns the whole names (with docker.io and library/) that images here
// have in the repository of a name, sorted.
func (m *Manager) Tags(_ context.Context, repository string) ([]string, error) {
	wanted, err := image.Repository(repository)
	if err != nil {
		return nil, imageError(err)
	}
	list, _ := m.images.List()
	var tags []string
	for _, img := range list {
		for _, n := range img.Names {
			full, err := image.FullName(n)
			if err != nil {
				continue // an archive or a layout
			}
			if r, err := image.Repository(n); err == nil && r == wanted {
				tags = append(tags, full)
			}
		}
	}
	if len(tags) == 0 {
		return nil, fmt.Errorf("%w: no image here has a tag of %s", ErrNotFound, wanted)
	}
	slices.Sort(tags)
	return tags, nil
}
