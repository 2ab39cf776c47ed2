package manager

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/micropod/micropod/pkg/image"
)

// HistoryStep is one step in the making of an image.
type HistoryStep struct {
	// ImageID is the image's own ID for the newest step, "" for the others:
	// what was there in between has no id.
	ImageID            string
	Created            time.Time // zero when the image does not say
	CreatedBy, Comment string
	// Size is what the step's layer takes on disk, in bytes; 0 for a step
	// without a layer.
	Size int64
}

// History returns the steps that the image's config tells of, the newest first.
// An image that is not for platform is an error; "" takes any.
func (m *Manager) History(_ context.Context, ref, platform string) ([]HistoryStep, error) {
	img, err := m.fittingImage(ref, platform)
	if err != nil {
		return nil, err
	}
	var steps []HistoryStep
	layer := 0
	for _, h := range img.Config.History {
		s := HistoryStep{CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			s.Created = *h.Created
		}
		if !h.EmptyLayer { // the image's check has counted these
			if s.Size, err = (layers{m}).LayerSize(img.DiffIDs[layer]); err != nil {
				return nil, fmt.Errorf("history of %s: %w", ref, err)
			}
			layer++
		}
		steps = append(steps, s)
	}
	slices.Reverse(steps)
	if len(steps) > 0 {
		steps[0].ImageID = img.ID
	}
	return steps, nil
}

// fittingImage finds an image and holds it to a platform; "" takes any.
func (m *Manager) fittingImage(ref, platform string) (*image.Image, error) {
	img, err := m.images.Get(ref)
	if err != nil {
		return nil, imageError(err)
	}
	if platform == "" {
		return img, nil
	}
	fits, err := img.Fits(platform)
	if err != nil {
		return nil, imageError(err)
	}
	if !fits {
		return nil, fmt.Errorf("%w: %s is for %s, not for %s", image.ErrPlatform, ref, img.Platform, platform)
	}
	return img, nil
}

// TagImage gives an image one more name, taking it from the image that had it.
func (m *Manager) TagImage(_ context.Context, ref, name string) error {
	if err := m.images.Tag(ref, name); err != nil {
		return imageError(err)
	}
	m.tellTagged(name)
	return nil
}
