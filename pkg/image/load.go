package image

import (
	"context"
	"fmt"
	"io"
)

// LoadOptions tune one Load.
type LoadOptions struct {
	// Platform chooses among the platforms of a multi-platform archive, in
	// Pull's form. "" prefers this machine's and takes a lone other one.
	Platform string
	// Progress may be nil.
	Progress Progress
}

// Load stores every image of an archive in docker's or the OCI's format, plain
// or compressed, under the names that the archive gives, and returns them. As
// in docker load, a name moves away from the image that had it. On an error the
// images before it stay.
//
// A plain tar in a regular file is read where it is; anything else is first
// copied to a nameless temporary file in the store's directory.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]*Image, error) {
	platform, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	want := wish{platform, o.Platform == ""}
	a, err := s.readArchive(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer a.close()
	var images []*Image
	if a.has(fileManifest) {
		images, err = s.loadDocker(ctx, a, want, o.Progress)
	} else {
		images, err = s.loadLayout(ctx, a, want, o.Progress)
	}
	if err != nil {
		return images, fmt.Errorf("load: %w", err)
	}
	return images, nil
}

func (s *Store) loadDocker(ctx context.Context, a *archive, want wish, p Progress) ([]*Image, error) {
	all, err := a.saved()
	if err != nil {
		return nil, err
	}
	var images []*Image
	for i := range all {
		names, err := all[i].tags()
		if err != nil {
			return images, err
		}
		found, err := a.savedImage(&all[i])
		if err != nil {
			return images, fmt.Errorf("image %d: %w", i+1, err)
		}
		if err := found.check(want); err != nil {
			return images, fmt.Errorf("image %d: %w", i+1, err)
		}
		img, err := s.add(ctx, found, naming{names: names}, p)
		if err != nil {
			return images, fmt.Errorf("image %d: %w", i+1, err)
		}
		images = append(images, img)
	}
	return images, nil
}

func (s *Store) loadLayout(ctx context.Context, a *archive, want wish, p Progress) ([]*Image, error) {
	x, err := layoutIndex(a)
	if err != nil {
		return nil, fmt.Errorf("neither a docker nor an OCI archive: %w", err)
	}
	var images []*Image
	groups, _ := groupEntries(x)
	for i, entries := range groups {
		found, err := resolveEntries(ctx, a, entries, want)
		if err != nil {
			return images, fmt.Errorf("image %d: %w", i+1, err)
		}
		img, err := s.add(ctx, found, naming{names: entryNames(entries[0])}, p)
		if err != nil {
			return images, fmt.Errorf("image %d: %w", i+1, err)
		}
		images = append(images, img)
	}
	return images, nil
}
