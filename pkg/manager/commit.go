package manager

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/state"
)

// CommitOptions describe the image that Commit makes.
type CommitOptions struct {
	Name            string // "" for none
	Author, Message string
	Changes         []string // instructions of a Dockerfile
	Pause           bool     // the container, if it runs, while its files are read
}

// Commit makes an image of a container: its image with a layer of what it has
// changed and with its settings. It returns the image's ID.
func (m *Manager) Commit(ctx context.Context, ref string, o CommitOptions) (string, error) {
	vm, err := m.resolve(ref)
	if err != nil {
		return "", err
	}
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return "", err
	}
	img, err := m.images.Commit(ctx, m.commitOptions(c, o), func() (io.ReadCloser, error) {
		return m.openLayer(ctx, vm, o.Pause)
	})
	if err != nil {
		return "", imageError(err)
	}
	if o.Name != "" {
		m.tellTagged(o.Name)
	}
	m.tellContainer(events.ActionCommit, vm, "comment", o.Message, "imageID", img.ID, "imageRef", o.Name)
	return img.ID, nil
}

// layerReader is what a container has changed, as the tar of a layer.
type layerReader struct {
	io.Reader
	close []func() error
}

// Close lets the container go, in the reverse order of what was taken.
func (l *layerReader) Close() error {
	var err error
	for _, f := range slices.Backward(l.close) {
		err = errors.Join(err, f())
	}
	l.close = nil
	return err
}

// openLayer opens what a container has changed; one that runs is paused until
// the reader is closed, if hold is set.
func (m *Manager) openLayer(ctx context.Context, vm state.VM, hold bool) (_ io.ReadCloser, err error) {
	var l layerReader
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	f, err := m.OpenFiles(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	l.close = append(l.close, f.Close)
	if hold && f.container != "" && !m.paused(vm.ID) {
		unpause, err := m.holdPaused(ctx, vm)
		if err != nil {
			return nil, err
		}
		l.close = append(l.close, unpause)
	}
	r, err := f.open(ctx, api.FilesRequest{Op: api.FileLayer})
	if err != nil {
		return nil, err
	}
	l.Reader, l.close = r, append(l.close, r.Close)
	return &l, nil
}

func (m *Manager) commitOptions(c *state.Config, o CommitOptions) image.CommitOptions {
	var base image.Settings
	if img, err := m.images.Get(c.ImageID); err == nil {
		base = dockerFields(img).Config
	}
	settings := committedSettings(c, base)
	return image.CommitOptions{
		Base: c.ImageID, DiffIDs: c.DiffIDs, Platform: c.Platform,
		Settings: settings, Changes: o.Changes, Name: o.Name,
		Author: o.Author, Message: o.Message, CreatedBy: strings.Join(settings.Cmd, " "),
	}
}

// committedSettings are a container's settings as those of an image: without what
// its start adds. Pure.
func committedSettings(c *state.Config, base image.Settings) image.Settings {
	entrypoint, cmd := c.Entrypoint, c.Args[min(len(c.Entrypoint), len(c.Args)):]
	s := image.Settings{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, WorkingDir: c.Workdir, Entrypoint: entrypoint, Cmd: cmd,
			Env: committedEnv(c, base.Env), Labels: c.Labels,
			StopSignal: base.StopSignal, ExposedPorts: keySet(c.ExposedPorts), Volumes: keySet(c.Volumes),
		},
		Healthcheck: (*image.Healthcheck)(c.Healthcheck), Shell: c.Shell,
	}
	if number, err := stopSignal(base.StopSignal); err != nil || number != c.StopSignal {
		s.StopSignal = signalName(c.StopSignal)
	}
	return s
}

// committedEnv is the environment without the variables that a start sets where
// the image and the user do not.
func committedEnv(c *state.Config, base []string) []string {
	added := startVariables(c)
	return slices.DeleteFunc(slices.Clone(c.Env), func(kv string) bool {
		return slices.Contains(added, kv) && !slices.Contains(base, kv)
	})
}

// keySet is the words as the keys of a map, nil for none.
func keySet(words []string) map[string]struct{} {
	var all map[string]struct{}
	for _, w := range words {
		if all == nil {
			all = map[string]struct{}{}
		}
		all[w] = struct{}{}
	}
	return all
}
