package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// maxMountSources bounds the repositories that a layer is looked for in.
const maxMountSources = 4

// PushOptions tune one Push.
type PushOptions struct {
	// Platform makes it an error when the image is for another one; "" takes
	// any.
	Platform string
	// Progress may be nil.
	Progress Progress
}

// Pushed is what the registry has now.
type Pushed struct {
	// Digest and Size are those of the manifest.
	Digest string
	Size   int64
}

// Push uploads the image that goes by the name ref to the registry that the
// name says.
//
// The store keeps layers uncompressed, so the compressed bytes that an image
// was pulled as are gone. Where the registry has those blobs, or can take them
// from another repository of its own, they are used, and the manifest is the
// one that was pulled, byte for byte. Every other layer is compressed anew, and
// the manifest, and so the image's digest, is a new one; its config and ID stay
// the same. What was pushed is remembered: the same push again uploads nothing.
func (s *Store) Push(ctx context.Context, ref string, o PushOptions) (Pushed, error) {
	t, err := parsePushed(ref)
	if err != nil {
		return Pushed{}, fmt.Errorf("push: %w", err)
	}
	start := time.Now()
	done, err := s.push(ctx, t, o)
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", t, err)
	}
	s.o.Log.Debug("image pushed", "image", t.String(), "digest", done.Digest, "took", time.Since(start))
	return done, nil
}

func parsePushed(ref string) (target, error) {
	t, err := parseTarget(ref)
	switch {
	case err != nil:
		return t, err
	case t.kind != fromRegistry:
		return t, fmt.Errorf("%w: %q is no name in a registry: tag the image first", ErrReference, clip(ref))
	case t.digest() != "":
		return t, fmt.Errorf("%w: %q: a digest cannot be pushed, only a tag", ErrReference, clip(ref))
	}
	return t, nil
}

func (s *Store) push(ctx context.Context, t target, o PushOptions) (Pushed, error) {
	img, release, err := s.Hold(t.String())
	if err != nil {
		return Pushed{}, err
	}
	defer release()
	if !slices.Contains(img.Names, t.String()) { // an id, spelled as a name
		return Pushed{}, fmt.Errorf("%w: %s: tag the image with the name that it shall have in the registry", ErrNotFound, t)
	}
	if o.Platform != "" {
		fits, err := img.Fits(o.Platform)
		if err != nil {
			return Pushed{}, err
		}
		if !fits {
			return Pushed{}, fmt.Errorf("%w: it is for %s, not for %s", ErrPlatform, img.Platform, clip(o.Platform))
		}
	}
	p := &pusher{s: s, img: img, progress: o.Progress, mounts: mountSources(img, t)}
	if p.known, err = s.knownManifests(img); err != nil {
		return Pushed{}, err
	}
	if p.r, err = s.openPush(ctx, t, p.mounts); err != nil {
		return Pushed{}, err
	}
	defer p.r.close()
	raw, mediaType, err := p.run(ctx)
	if err != nil {
		return Pushed{}, err
	}
	if err := p.r.putManifest(ctx, t.named.(reference.Tagged).Tag(), mediaType, raw); err != nil {
		return Pushed{}, err
	}
	if err := s.recordPush(img.ID, t, raw); err != nil {
		return Pushed{}, err
	}
	return Pushed{Digest: digestOf(raw), Size: int64(len(raw))}, nil
}

// mountSources are the other repositories of the same registry from which the
// image came.
func mountSources(img *Image, t target) []string {
	var all []string
	for _, d := range img.Digests {
		named, err := reference.ParseNormalizedNamed(d)
		if err != nil || reference.Domain(named) != reference.Domain(t.named) {
			continue
		}
		path := reference.Path(named)
		if path != reference.Path(t.named) && !slices.Contains(all, path) && len(all) < maxMountSources {
			all = append(all, path)
		}
	}
	return all
}

// knownManifest is a manifest under which the image is, or was, in a registry.
type knownManifest struct {
	raw []byte
	m   *ocispec.Manifest
}

// knownManifests are the manifest that was pulled and those that were pushed.
func (s *Store) knownManifests(img *Image) ([]knownManifest, error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	r := x.byID(img.ID)
	if r == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, shortID(img.ID))
	}
	var all []knownManifest
	for _, d := range r.manifests() {
		raw, err := s.content(d)
		if err != nil {
			s.o.Log.Debug("manifest is lost, pushing without it", "manifest", d, "cause", err)
			continue
		}
		doc, err := decodeDocument(raw, "")
		if err == nil && doc.manifest != nil && doc.manifest.Config.Digest.String() == img.ID &&
			len(doc.manifest.Layers) == len(img.DiffIDs) {
			all = append(all, knownManifest{raw, doc.manifest})
		}
	}
	return all, nil
}

// recordPush remembers under which digest and with which blobs the registry has
// the image now.
func (s *Store) recordPush(id string, t target, manifest []byte) error {
	digest := digestOf(manifest)
	err := s.update(func(x *index) error {
		r := x.byID(id)
		if r == nil {
			return nil // removed by force meanwhile
		}
		if err := s.putContent(digest, manifest); err != nil {
			return err
		}
		r.remember(digest)
		if d := digestName(t, digest); !slices.Contains(r.Digests, d) {
			r.Digests = append(r.Digests, d)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record the push: %w", err)
	}
	return nil
}

// pusher is one push on its way.
type pusher struct {
	s        *Store
	r        *repository
	img      *Image
	known    []knownManifest
	mounts   []string
	progress Progress
}

// run uploads what the registry lacks and returns the manifest of it.
func (p *pusher) run(ctx context.Context) (raw []byte, mediaType string, err error) {
	layers := make([]ocispec.Descriptor, len(p.img.DiffIDs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.s.o.Parallel)
	for i, d := range p.img.DiffIDs {
		if slices.Index(p.img.DiffIDs, d) < i {
			continue
		}
		p.event(d, "preparing", 0, 0)
		g.Go(func() (err error) {
			if layers[i], err = p.layer(gctx, d); err != nil {
				return fmt.Errorf("layer %s: %w", shortID(d), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, "", err
	}
	for i, d := range p.img.DiffIDs {
		layers[i] = layers[slices.Index(p.img.DiffIDs, d)]
	}
	if raw, mediaType, err = p.manifest(layers); err != nil {
		return nil, "", err
	}
	config := ocispec.Descriptor{Digest: digest.Digest(p.img.ID), Size: int64(len(p.img.Raw))}
	if err := p.r.ensureBlob(ctx, config, bytesBody(p.img.Raw), nil); err != nil {
		return nil, "", fmt.Errorf("config: %w", err)
	}
	return raw, mediaType, nil
}

func (p *pusher) event(diffID, event string, current, total int64) {
	if p.progress != nil {
		p.progress.Layer(shortID(diffID), event, current, total)
	}
}

// layer puts one layer into the registry, by the cheapest way.
func (p *pusher) layer(ctx context.Context, diffID string) (ocispec.Descriptor, error) {
	known := p.blobsOf(diffID)
	for _, d := range known {
		there, err := p.r.hasBlob(ctx, d)
		if err != nil {
			return d, err
		}
		if there {
			p.event(diffID, "present", 0, 0)
			return d, nil
		}
	}
	for _, d := range known {
		for _, from := range p.mounts {
			if p.r.mount(ctx, d, from) {
				p.event(diffID, "mounted from "+from, 0, 0)
				return d, nil
			}
		}
	}
	blob, err := p.s.compressLayer(ctx, diffID)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer blob.close()
	d := ocispec.Descriptor{MediaType: p.layerType(), Digest: digest.Digest(blob.digest), Size: blob.size}
	there, err := p.r.hasBlob(ctx, d)
	if err != nil {
		return d, err
	}
	event := "present"
	if !there {
		event = "pushed"
		moved := func(n int64) { p.event(diffID, "pushing", n, d.Size) }
		moved(0)
		if err := p.r.upload(ctx, d, blob.body, moved); err != nil {
			return d, err
		}
	}
	p.event(diffID, event, d.Size, d.Size)
	return d, nil
}

// blobsOf are the forms in which registries have had the layer.
func (p *pusher) blobsOf(diffID string) []ocispec.Descriptor {
	var all []ocispec.Descriptor
	for _, k := range p.known {
		for i, d := range p.img.DiffIDs {
			same := func(o ocispec.Descriptor) bool { return o.Digest == k.m.Layers[i].Digest }
			if d == diffID && !slices.ContainsFunc(all, same) {
				all = append(all, k.m.Layers[i])
			}
		}
	}
	return all
}

// isDocker reports whether the image came in docker's own format, which it then
// keeps: some registries and tools know no other.
func (p *pusher) isDocker() bool {
	return len(p.known) > 0 && p.known[0].m.MediaType == string(types.DockerManifestSchema2)
}

func (p *pusher) layerType() string {
	if p.isDocker() {
		return string(types.DockerLayer)
	}
	return ocispec.MediaTypeImageLayerGzip
}

// manifest is the known one of these layers, or a new one.
func (p *pusher) manifest(layers []ocispec.Descriptor) (raw []byte, mediaType string, err error) {
	for _, k := range p.known {
		same := func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest }
		if slices.EqualFunc(k.m.Layers, layers, same) {
			return k.raw, or(k.m.MediaType, ocispec.MediaTypeImageManifest), nil
		}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: layers}
	m.Config = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig, Digest: digest.Digest(p.img.ID), Size: int64(len(p.img.Raw))}
	if len(p.known) > 0 {
		m.Annotations = p.known[0].m.Annotations
	}
	if p.isDocker() {
		m.MediaType, m.Config.MediaType = string(types.DockerManifestSchema2), string(types.DockerConfigJSON)
	}
	raw, err = json.Marshal(m)
	return raw, m.MediaType, err
}
