package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// fileManifest is the table of contents of a docker archive.
const fileManifest = "manifest.json"

// maxImages bounds the images of one archive or layout.
const maxImages = 1 << 10

// savedImage is one entry of manifest.json, as docker save writes it.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// decodeSaved decodes manifest.json.
func decodeSaved(raw []byte) ([]savedImage, error) {
	var all []savedImage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("%w: decode %s: %w", ErrInvalid, fileManifest, err)
	}
	if len(all) == 0 || len(all) > maxImages {
		return nil, fmt.Errorf("%w: %s names %d images, not 1 to %d", ErrInvalid, fileManifest, len(all), maxImages)
	}
	for i, m := range all {
		if len(m.Layers) > maxLayers {
			return nil, fmt.Errorf("%w: image %d of %s has %d layers, at most %d are supported",
				ErrInvalid, i, fileManifest, len(m.Layers), maxLayers)
		}
		for _, name := range append([]string{m.Config}, m.Layers...) {
			if _, err := entryName(name); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, fileManifest, err)
			}
		}
	}
	return all, nil
}

func (a *archive) saved() ([]savedImage, error) {
	raw, err := a.document(fileManifest)
	if err != nil {
		return nil, fmt.Errorf("not a docker archive: %w", err)
	}
	return decodeSaved(raw)
}

// tags gives the names of a saved image in normal form.
func (m *savedImage) tags() ([]string, error) {
	var names []string
	for _, tag := range m.RepoTags {
		named, err := parseNamed(tag)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileManifest, err)
		}
		if _, ok := named.(reference.Digested); ok {
			return nil, fmt.Errorf("%w: %s: %q is not a tag", ErrInvalid, fileManifest, clip(tag))
		}
		names = append(names, reference.FamiliarString(named))
	}
	return names, nil
}

// savedImage reads the documents of one image of a docker archive.
func (a *archive) savedImage(m *savedImage) (*found, error) {
	config, err := a.document(m.Config)
	if err != nil {
		return nil, err
	}
	// Docker names a config for its digest; so does everything else.
	if d := digestInName(m.Config); d != "" && d != digestOf(config) {
		return nil, fmt.Errorf("%w: wrong content of %s: digest is %s", ErrInvalid, m.Config, digestOf(config))
	}
	_, diffIDs, err := decodeConfig(config)
	if err != nil {
		return nil, err
	}
	if len(diffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("%w: %s has %d layers, config's diff_ids name %d",
			ErrInvalid, fileManifest, len(m.Layers), len(diffIDs))
	}
	img := &found{config: config, diffIDs: diffIDs}
	for i, name := range m.Layers {
		sec, err := a.find(name)
		if err != nil {
			return nil, err
		}
		l := layerBlob{diffID: diffIDs[i], size: sec.size}
		if strings.HasPrefix(path.Clean(name), "blobs/sha256/") {
			l.digest = digestInName(name)
		}
		l.open = func(context.Context) (io.ReadCloser, error) { return a.reader(sec), nil }
		img.layers = append(img.layers, l)
	}
	return img, nil
}

// digestInName finds the digest that a file is named for, "" if there is none.
func digestInName(name string) string {
	d := digestPrefix + strings.TrimSuffix(path.Base(name), ".json")
	if checkDigest(d) != nil {
		return ""
	}
	return d
}

// pullDockerArchive stores the one image that t means, under t's own name: only
// load gives an archive's tags to its images.
func (s *Store) pullDockerArchive(ctx context.Context, a *archive, t target, want wish, p Progress) (*Image, error) {
	all, err := a.saved()
	if err != nil {
		return nil, err
	}
	m, err := chooseSaved(all, t.tag)
	if err != nil {
		return nil, err
	}
	img, err := a.savedImage(m)
	if err != nil {
		return nil, err
	}
	if err := img.check(want); err != nil {
		return nil, err
	}
	return s.add(ctx, img, naming{names: []string{t.String()}}, p)
}

func chooseSaved(all []savedImage, tag string) (*savedImage, error) {
	var names []string
	for i := range all {
		tags, err := all[i].tags()
		if err != nil {
			return nil, err
		}
		if tag == "" && len(all) == 1 || tag != "" && slices.Contains(tags, tag) {
			return &all[i], nil
		}
		names = append(names, tags...)
	}
	return nil, errChoose(tag, names)
}

// errChoose says which images there are to choose from.
func errChoose(tag string, names []string) error {
	list := printableList(names)
	if tag == "" {
		return fmt.Errorf("%w: holds several images, choose one by :NAME at the end: %s", ErrReference, list)
	}
	return fmt.Errorf("%w: no image %q in it, it holds: %s", ErrNotFound, tag, list)
}

func printableList(names []string) string {
	if len(names) == 0 {
		return "only images without a name"
	}
	var out []string
	for _, n := range names[:min(len(names), 32)] {
		out = append(out, printable(n))
	}
	return strings.Join(out, ", ")
}
