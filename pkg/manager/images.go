package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/ledger"
	"github.com/micropod/micropod/pkg/state"
)

// kindError gives an error of another package one of this package's kinds.
type kindError struct{ kind, err error }

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.err} }

// imageError translates what pkg/image says.
func imageError(err error) error {
	if err == nil {
		return nil
	}
	for from, to := range map[error]error{
		image.ErrNotFound: ErrNotFound, image.ErrAmbiguous: ErrAmbiguous,
		image.ErrConflict: ErrConflict, image.ErrReference: ErrInvalid,
	} {
		if errors.Is(err, from) {
			return &kindError{to, err}
		}
	}
	return err
}

// Pull fetches an image from wherever ref points.
func (m *Manager) Pull(ctx context.Context, ref, platform string, p Progress) (*Image, error) {
	img, err := m.pull(ctx, ref, platform, p)
	if err != nil {
		return nil, imageError(err)
	}
	return newImage(img), nil
}

func (m *Manager) pull(ctx context.Context, ref, platform string, p Progress) (*image.Image, error) {
	img, err := m.images.Pull(ctx, ref, image.PullOptions{Platform: platform, Progress: p})
	if err == nil {
		m.tellTransfer(events.ActionPull, ref, img)
	}
	return img, err
}

// Images returns all images, and an error for each that is broken.
func (m *Manager) Images(context.Context) ([]Image, []error, error) {
	list, problems := m.images.List()
	all := make([]Image, 0, len(list))
	for _, img := range list {
		all = append(all, *newImage(img))
	}
	return all, problems, nil
}

// InspectImage returns one image by name, id or unique prefix of its id. An
// image that is not for platform is an error; "" takes any.
func (m *Manager) InspectImage(_ context.Context, ref, platform string) (*Image, error) {
	img, err := m.fittingImage(ref, platform)
	if err != nil {
		return nil, err
	}
	return newImage(img), nil
}

func newImage(i *image.Image) *Image {
	return &Image{
		ID: i.ID, Names: i.Names, Digests: i.Digests, Pulled: i.Pulled, Created: i.Created, Size: i.Size,
		Platform: i.Platform, Config: i.Config, Docker: dockerFields(i), DiffIDs: i.DiffIDs, Added: i.Added,
	}
}

// dockerFields leaves docker's fields empty when they make no sense: nobody has
// checked them, and the image can be used all the same.
func dockerFields(i *image.Image) image.DockerImage {
	d, err := i.Docker()
	if err != nil {
		return image.DockerImage{Image: i.Config, Config: image.Settings{ImageConfig: i.Config.Config}}
	}
	return *d
}

// RemoveImage removes a name, and the image with its layers when it was the
// last one. An image that a container uses needs force, which only untags it:
// its layers stay until the container is gone.
func (m *Manager) RemoveImage(ctx context.Context, ref string, force bool) (untagged, deleted []string, err error) {
	r, err := m.images.Remove(ctx, ref, m.users, force)
	if err != nil {
		return nil, nil, imageError(err)
	}
	m.tellRemoved(r)
	if len(r.Deleted) > 0 {
		_, err = m.pruneDisks(ctx)
	}
	return r.Untagged, r.Deleted, err
}

// pruneDisks removes the disks that no image and no container is made of.
func (m *Manager) pruneDisks(ctx context.Context) (freed int64, err error) {
	freed, err = m.disks.PruneImages(ctx, m.usedDisks())
	if err != nil {
		return freed, fmt.Errorf("remove unused disks: %w", err)
	}
	return freed, nil
}

// usedDisks tells of layers whether an image or a container is made of just them.
func (m *Manager) usedDisks() func(diffIDs []string) bool {
	used := map[string]bool{}
	key := func(diffIDs []string) string { return strings.Join(diffIDs, " ") }
	for _, c := range m.configs {
		used[key(c.DiffIDs)] = true
	}
	images, _ := m.images.List()
	for _, img := range images {
		used[key(img.DiffIDs)] = true
	}
	return func(diffIDs []string) bool { return used[key(diffIDs)] }
}

// users names the containers made of an image.
func (m *Manager) users(imageID string) []string {
	var names []string
	for vm, c := range m.configs {
		if c.ImageID == imageID {
			names = append(names, vm.Name)
		}
	}
	return names
}

// configs ranges over the containers whose description can be read.
func (m *Manager) configs(yield func(state.VM, *state.Config) bool) {
	vms, err := m.state.List()
	if err != nil {
		return
	}
	for _, vm := range vms {
		if c, err := m.state.ReadConfig(vm.ID); err == nil && !yield(vm, c) {
			return
		}
	}
}

// Load adds the images of a docker or OCI archive; platform chooses where there
// are several.
func (m *Manager) Load(ctx context.Context, r io.Reader, platform string, p Progress) ([]Image, error) {
	list, err := m.images.Load(ctx, r, image.LoadOptions{Platform: platform, Progress: p})
	if err != nil {
		return nil, imageError(err)
	}
	all := make([]Image, 0, len(list))
	for _, img := range list {
		m.tellImage(events.ActionLoad, img.ID, img.ID, img.Config.Config.Labels)
		all = append(all, *newImage(img))
	}
	return all, nil
}

// Save writes images as one archive, format "docker" or "oci". An image that is
// not for platform is an error; "" takes any.
func (m *Manager) Save(ctx context.Context, w io.Writer, refs []string, format, platform string) error {
	if err := m.images.Save(ctx, w, refs, format, platform); err != nil {
		return imageError(err)
	}
	for _, ref := range refs {
		m.tellNamed(events.ActionSave, ref)
	}
	return nil
}

// layers is the store of layers that pkg/image asks for.
type layers struct{ m *Manager }

func (l layers) HasLayer(diffID string) bool { return l.m.disks.HasLayer(diffID) }

func (l layers) LayerTar(diffID string) (io.ReadCloser, error) { return l.m.disks.LayerTar(diffID) }

func (l layers) AddLayer(ctx context.Context, diffID string, r io.Reader) error {
	_, err := l.m.disks.AddLayer(ctx, diffID, r)
	return err
}

func (l layers) LayerSize(diffID string) (int64, error) {
	layer, err := l.m.disks.Layer(diffID)
	return layer.Size, err
}

func (l layers) LayerTarSize(diffID string) (int64, error) {
	layer, err := l.m.disks.Layer(diffID)
	return layer.TarSize, err
}

func (l layers) Prune(ctx context.Context, keep func(diffID string) bool) (int64, error) {
	return l.m.disks.Prune(ctx, l.orOfContainers(keep))
}

func (l layers) Check(keep func(diffID string) bool) ([]ledger.Finding, error) {
	return l.m.disks.Check(l.orOfContainers(keep))
}

// orOfContainers keeps, beside what the images need, what containers were made
// of: an image may be gone while its container stays.
func (l layers) orOfContainers(keep func(diffID string) bool) func(diffID string) bool {
	var used []string
	for _, c := range l.m.configs {
		used = append(used, c.DiffIDs...)
	}
	return func(d string) bool { return keep(d) || slices.Contains(used, d) }
}
