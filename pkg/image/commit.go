package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// emptyTar is the diffID of a layer that changes nothing: a tar of no entry.
const emptyTar = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// CommitOptions describe an image that is made of a container.
type CommitOptions struct {
	// Base is the ID of the container's image; it may be gone.
	Base string
	// DiffIDs are the container's layers, and Platform is what they are for.
	DiffIDs  []string
	Platform string
	// Settings are the container's, and Changes are made to them.
	Settings Settings
	Changes  []string
	// Name is what the image shall be called, "" for no name.
	Name string
	// Author, Message and CreatedBy go into the image's history.
	Author, Message, CreatedBy string
}

// Commit makes an image with one more layer than the container's own has, and
// returns it. layer opens the tar of that layer, once all else is found good; its
// bytes are no more trusted than a registry's. A layer of no entry is left out.
func (s *Store) Commit(ctx context.Context, o CommitOptions, layer func() (io.ReadCloser, error)) (*Image, error) {
	img, err := s.commit(ctx, o, layer)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return img, nil
}

func (s *Store) commit(ctx context.Context, o CommitOptions, open func() (io.ReadCloser, error)) (*Image, error) {
	as, err := named(o.Name)
	if err != nil {
		return nil, err
	}
	if err := applyChanges(&o.Settings, o.Changes); err != nil {
		return nil, err
	}
	// The base's layers stay while this image is not there yet.
	keep, err := s.acquire(o.Base, o.DiffIDs)
	if err != nil {
		return nil, err
	}
	defer keep.release()
	c, err := s.baseConfig(o)
	if err != nil {
		return nil, err
	}
	f, err := s.spoolLayer(ctx, open)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	blob, err := layerOfFile(ctx, f)
	if err != nil {
		return nil, err
	}
	img := &found{diffIDs: slices.Clone(o.DiffIDs)}
	if blob.diffID != emptyTar {
		img.diffIDs, img.layers = append(img.diffIDs, blob.diffID), []layerBlob{*blob}
	}
	if len(img.diffIDs) > maxLayers {
		return nil, fmt.Errorf("%w: the image has %d layers already: no more are possible", ErrInvalid, len(o.DiffIDs))
	}
	if img.config, err = committedConfig(c, o, img.diffIDs); err != nil {
		return nil, err
	}
	return s.add(ctx, img, as, nil)
}

// spoolLayer reads a layer and lets its source go at once: a container may wait.
func (s *Store) spoolLayer(ctx context.Context, open func() (io.ReadCloser, error)) (*os.File, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	f, err := s.spoolPlain(ctx, r, maxLayerBytes)
	if cerr := r.Close(); err == nil && cerr != nil {
		f.Close()
		err = cerr
	}
	return f, err
}

// baseConfig is the config of the container's image, or as much of it as can be
// known without the image.
func (s *Store) baseConfig(o CommitOptions) (*DockerImage, error) {
	img, err := s.Get(o.Base)
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged):
		platform, err := parsePlatform(o.Platform)
		return &DockerImage{Image: ocispec.Image{Platform: platform}}, err
	case err != nil:
		return nil, err
	}
	return img.Docker()
}

// committedConfig is the new image's: the base's, with the container's settings
// and one more step in its history.
func committedConfig(c *DockerImage, o CommitOptions, diffIDs []string) ([]byte, error) {
	now := time.Now().UTC()
	c.Created, c.Author, c.Comment, c.Config = &now, o.Author, o.Message, o.Settings
	c.RootFS = ocispec.RootFS{Type: "layers"}
	for _, d := range diffIDs {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.Digest(d))
	}
	// Not every image tells of all its layers, but a step has its place by those before.
	for layersInHistory(c.History) < len(o.DiffIDs) {
		c.History = append(c.History, ocispec.History{})
	}
	c.History = append(c.History, ocispec.History{
		Created: &now, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Message,
		EmptyLayer: len(diffIDs) == len(o.DiffIDs),
	})
	return encodeConfig(c)
}
