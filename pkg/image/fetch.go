package image

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/micropod/micropod/internal/failpoint"
)

// fetcher reads from one repository, layout or archive. What it gives is
// verified by the caller.
type fetcher interface {
	// manifest reads a manifest or index.
	manifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	// open gives the bytes of a config or layer.
	open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// found is an image whose documents are read and verified, and whose layers
// are not read yet.
type found struct {
	manifest []byte // nil when the source has none
	config   []byte
	diffIDs  []string
	layers   []layerBlob // one per diffID
}

// check compares the platform of an image whose config was decoded before.
func (f *found) check(want wish) error {
	c, _, err := decodeConfig(f.config)
	if err != nil {
		return err
	}
	return checkPlatform(c, want)
}

// wish is the platform that an image shall have.
type wish struct {
	ocispec.Platform
	// lone takes an image that is not in an index whatever its platform is.
	lone bool
}

// resolve goes from a document to the one image in it that suits want.
func resolve(ctx context.Context, f fetcher, raw []byte, mediaType string, want wish) (*found, error) {
	for depth := 0; depth <= maxIndexDepth; depth++ {
		doc, err := decodeDocument(raw, mediaType)
		if err != nil {
			return nil, err
		}
		if doc.manifest != nil {
			return resolveManifest(ctx, f, raw, doc.manifest, want)
		}
		want.lone = false
		d, err := choosePlatform(doc.index.Manifests, want.Platform)
		if err != nil {
			return nil, err
		}
		if raw, err = fetchManifest(ctx, f, d); err != nil {
			return nil, err
		}
		mediaType = d.MediaType
	}
	return nil, fmt.Errorf("%w: indexes are nested more than %d deep", ErrInvalid, maxIndexDepth)
}

func fetchManifest(ctx context.Context, f fetcher, d ocispec.Descriptor) ([]byte, error) {
	raw, err := f.manifest(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("fetch manifest %s: %w", shortID(d.Digest.String()), err)
	}
	return raw, verifyDocument(raw, d)
}

func verifyDocument(raw []byte, d ocispec.Descriptor) error {
	if int64(len(raw)) != d.Size {
		return fmt.Errorf("%w: %s has %d bytes, its descriptor says %d", ErrInvalid, d.Digest, len(raw), d.Size)
	}
	if got := digestOf(raw); got != d.Digest.String() {
		return fmt.Errorf("%w: wrong content: digest is %s, not %s", ErrInvalid, got, d.Digest)
	}
	return nil
}

func resolveManifest(ctx context.Context, f fetcher, raw []byte, m *ocispec.Manifest, want wish) (*found, error) {
	config, err := fetchConfig(ctx, f, m.Config)
	if err != nil {
		return nil, err
	}
	c, diffIDs, err := decodeConfig(config)
	if err != nil {
		return nil, err
	}
	if err := checkPlatform(c, want); err != nil {
		return nil, err
	}
	if len(diffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("%w: manifest has %d layers, config's diff_ids name %d",
			ErrInvalid, len(m.Layers), len(diffIDs))
	}
	img := &found{manifest: raw, config: config, diffIDs: diffIDs}
	for i, d := range m.Layers {
		img.layers = append(img.layers, layerBlob{
			diffID: diffIDs[i], digest: d.Digest.String(), size: d.Size,
			open: func(ctx context.Context) (io.ReadCloser, error) { return f.open(ctx, d) },
		})
	}
	return img, nil
}

func fetchConfig(ctx context.Context, f fetcher, d ocispec.Descriptor) ([]byte, error) {
	r, err := f.open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("fetch config: %w", err)
	}
	defer r.Close()
	raw, err := readDocument(r)
	if err != nil {
		return nil, fmt.Errorf("fetch config: %w", err)
	}
	return raw, verifyDocument(raw, d)
}

// naming says what will point to an image once it is stored.
type naming struct {
	names   []string // in normal form
	digests []string
}

// add stores an image: its missing layers first, then, in one step, the rest.
func (s *Store) add(ctx context.Context, img *found, as naming, p Progress) (*Image, error) {
	l, err := s.acquire(digestOf(img.config), img.diffIDs)
	if err != nil {
		return nil, err
	}
	defer l.release()
	failpoint.Here(failpoint.PullLeased)
	if err := s.addLayers(ctx, img.layers, p); err != nil {
		return nil, err
	}
	failpoint.Here(failpoint.PullLayers)
	return s.publish(img, as)
}

// addLayers fetches what the LayerStore lacks, a few at a time.
func (s *Store) addLayers(ctx context.Context, layers []layerBlob, p Progress) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.o.Parallel)
	for i := range layers {
		l := &layers[i]
		if slices.ContainsFunc(layers[:i], func(o layerBlob) bool { return o.diffID == l.diffID }) {
			continue
		}
		bar := newMeter(p, l)
		if s.layers.HasLayer(l.diffID) {
			bar.event("exists")
			continue
		}
		bar.event("pulling")
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return s.addLayer(ctx, l, bar)
		})
	}
	return g.Wait()
}

func (s *Store) addLayer(ctx context.Context, l *layerBlob, bar *meter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	r := newReadAhead(&layerReader{ctx: ctx, layer: l, moved: bar.moved})
	defer r.Close()
	defer cancel(errLayerDone) // first: it wakes a reader that waits for the network
	start := time.Now()
	if err := s.layers.AddLayer(ctx, l.diffID, r); err != nil {
		// A cancelled pull says so, whatever the interrupted step called it.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("add layer %s: %w", l.id(), err)
	}
	bar.event("done")
	s.o.Log.Debug("layer added", "layer", l.id(), "took", time.Since(start))
	return nil
}

// publish makes an image whose layers are in place visible.
func (s *Store) publish(img *found, as naming) (*Image, error) {
	id, manifest := digestOf(img.config), ""
	if img.manifest != nil {
		manifest = digestOf(img.manifest)
	}
	var stored *record
	err := s.update(func(x *index) error {
		if err := s.putContent(id, img.config); err != nil {
			return err
		}
		if manifest != "" {
			if err := s.putContent(manifest, img.manifest); err != nil {
				return err
			}
		}
		failpoint.Here(failpoint.PullDocuments)
		r := x.byID(id)
		if r == nil {
			r = &record{ID: id, Added: time.Now().UTC()}
			x.records = append(x.records, r)
		}
		if manifest != "" && manifest != r.Manifest {
			old := r.Manifest
			r.Manifest, r.Others = manifest, slices.DeleteFunc(r.Others, func(o string) bool { return o == manifest })
			r.remember(old)
		}
		for _, n := range as.names {
			x.setName(r, n)
		}
		for _, d := range as.digests {
			if !slices.Contains(r.Digests, d) {
				r.Digests = append(r.Digests, d)
			}
		}
		stored = r
		return nil
	})
	failpoint.Here(failpoint.PullRecorded)
	if err != nil {
		return nil, fmt.Errorf("store image %s: %w", shortID(id), err)
	}
	return s.load(stored)
}

// digestName is "repository@digest" as docker shows it.
func digestName(t target, digest string) string {
	return reference.FamiliarName(t.named) + "@" + digest
}
