package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// Get finds an image by name (name[:tag], name@digest, or the string that a
// local source was pulled as), by id or by a unique prefix of its id. The error
// wraps ErrNotFound, ErrAmbiguous, ErrReference or, when parts of the stored
// image are lost, ErrDamaged.
func (s *Store) Get(ref string) (*Image, error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	r, err := x.find(ref)
	if err != nil {
		return nil, err
	}
	img, err := s.load(r)
	if err != nil && s.gone(r.ID) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	return img, err
}

// gone reports whether an image was removed since its record was read, by
// somebody whom we do not wait for.
func (s *Store) gone(id string) bool {
	x, err := s.readIndex()
	return err == nil && x.byID(id) == nil
}

// List returns the images, oldest first, and an error for each one that cannot
// be used. Broken images never hide sound ones.
func (s *Store) List() ([]*Image, []error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, []error{err}
	}
	var images []*Image
	errs := x.errs()
	for _, r := range x.records {
		img, err := s.load(r)
		if err != nil {
			if !s.gone(r.ID) {
				errs = append(errs, err)
			}
			continue
		}
		images = append(images, img)
	}
	return images, errs
}

// find resolves ref in docker's order: a complete id, a name, an id prefix.
func (x *index) find(ref string) (*record, error) {
	id := strings.TrimPrefix(ref, digestPrefix)
	if len(id) == 64 && isHex(id) {
		if r := x.byID(digestPrefix + id); r != nil {
			return r, nil
		}
	}
	t, refErr := parseTarget(ref)
	if refErr == nil {
		if r := x.byTarget(t); r != nil {
			return r, nil
		}
	}
	if id != "" && len(id) <= 64 && isHex(id) {
		return x.byPrefix(ref, id)
	}
	if refErr != nil {
		return nil, refErr
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
}

func (x *index) byPrefix(ref, id string) (*record, error) {
	var found *record
	for _, r := range x.records {
		if !strings.HasPrefix(hexOf(r.ID), id) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: %s", ErrAmbiguous, ref)
		}
		found = r
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	return found, nil
}

func (x *index) byTarget(t target) *record {
	name, digest := t.String(), t.digest()
	for _, r := range x.records {
		if digest == "" && slices.Contains(r.Names, name) || digest != "" && r.hasDigest(t) {
			return r
		}
	}
	return nil
}

// hasDigest reports whether the image was pulled as, or is the platform's part
// of, the repository digest t.
func (r *record) hasDigest(t target) bool {
	if slices.Contains(r.Digests, t.String()) {
		return true
	}
	return r.Manifest == t.digest() && slices.ContainsFunc(r.Digests, func(d string) bool {
		named, err := reference.ParseNormalizedNamed(d)
		return err == nil && reference.FamiliarName(named) == t.repository()
	})
}

// load reads what the index does not hold. All parts must be there.
func (s *Store) load(r *record) (*Image, error) {
	img, err := s.describe(r)
	if err != nil {
		if errors.Is(err, ErrInvalid) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil, fmt.Errorf("image %s (%s): %w", r.label(), shortID(r.ID), err)
	}
	return img, nil
}

func (s *Store) describe(r *record) (*Image, error) {
	raw, err := s.content(r.ID)
	if err != nil {
		return nil, err
	}
	c, diffIDs, err := decodeConfig(raw)
	if err != nil {
		return nil, err
	}
	img := &Image{
		ID: r.ID, Names: slices.Clone(r.Names), Digests: slices.Clone(r.Digests), Manifest: r.Manifest,
		Added: r.Added, Platform: platformString(ownPlatform(c)), Config: *c, Raw: raw, DiffIDs: diffIDs,
	}
	if c.Created != nil {
		img.Created = *c.Created
	}
	for i, d := range diffIDs {
		if !s.layers.HasLayer(d) {
			return nil, fmt.Errorf("%w: layer %s is missing: pull or load the image again", ErrDamaged, d)
		}
		if slices.Contains(diffIDs[:i], d) {
			continue // the same layer twice takes its place once
		}
		n, err := s.layers.LayerSize(d)
		if err != nil {
			return nil, fmt.Errorf("%w: layer %s: %w", ErrDamaged, d, err)
		}
		img.Size += n
	}
	return img, nil
}
