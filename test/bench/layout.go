package main

import (
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// subject is the image that is measured.
type subject struct {
	blobs      []string // files of the compressed layers
	diffIDs    []string
	compressed int64 // bytes of all layers
}

// subject finds the image in the layout.
func (b *bench) subject() (subject, error) {
	index, err := layout.ImageIndexFromPath(b.layout)
	if err != nil {
		return subject{}, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return subject{}, err
	}
	for _, d := range manifest.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] == b.image {
			img, err := index.Image(d.Digest)
			if err != nil {
				return subject{}, err
			}
			return newSubject(b.layout, img)
		}
	}
	return subject{}, fmt.Errorf("no image %s in %s", b.image, b.layout)
}

func newSubject(dir string, img v1.Image) (subject, error) {
	var s subject
	manifest, err := img.Manifest()
	if err != nil {
		return s, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return s, err
	}
	for _, l := range manifest.Layers {
		s.blobs = append(s.blobs, filepath.Join(dir, "blobs", l.Digest.Algorithm, l.Digest.Hex))
		s.compressed += l.Size
	}
	for _, d := range config.RootFS.DiffIDs {
		s.diffIDs = append(s.diffIDs, d.String())
	}
	return s, nil
}
