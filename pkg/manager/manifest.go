package manager

import (
	"context"

	"github.com/micropod/micropod/pkg/image"
)

// RemoteManifests reads what a name means in its registry, see pkg/image.
func (m *Manager) RemoteManifests(ctx context.Context, ref string, o image.RemoteOptions) ([]image.RemoteManifest, error) {
	all, err := m.images.RemoteManifests(ctx, ref, o)
	return all, imageError(err)
}

// RemoteTags lists the names that a repository has in its registry.
func (m *Manager) RemoteTags(ctx context.Context, ref string) ([]string, error) {
	names, err := m.images.RemoteTags(ctx, ref)
	return names, imageError(err)
}
