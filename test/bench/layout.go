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

// findSubject finds the image with this name in a layout; one of a layout of our
// own has none.
func findSubject(dir, name string) (subject, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return subject{}, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return subject{}, err
	}
	for _, d := range manifest.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] == name {
			img, err := index.Image(d.Digest)
			if err != nil {
				return subject{}, err
			}
			return newSubject(dir, img)
		}
	}
	return subject{}, fmt.Errorf("no image %s in %s", name, dir)
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
