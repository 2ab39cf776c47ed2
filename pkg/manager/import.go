package manager

import (
	"context"
	"io"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
)

// ImportOptions describe the image that Import makes of a root file system.
type ImportOptions = image.ImportOptions

// Import makes an image out of a root file system in a tar file, and returns its
// ID.
func (m *Manager) Import(ctx context.Context, r io.Reader, o ImportOptions) (string, error) {
	img, err := m.images.Import(ctx, r, o)
	if err != nil {
		return "", imageError(err)
	}
	for _, name := range img.Names {
		m.tellTagged(name)
	}
	m.tellImage(events.ActionImport, img.ID, img.ID, img.Config.Config.Labels)
	return img.ID, nil
}

// Fetch reads a file from a web server, for Import.
func (m *Manager) Fetch(ctx context.Context, url string) (io.ReadCloser, error) {
	r, err := m.images.Fetch(ctx, url)
	return r, imageError(err)
}
