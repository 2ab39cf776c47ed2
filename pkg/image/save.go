package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Formats of Save.
const (
	FormatDocker = "docker"
	FormatOCI    = "oci"
)

// Save writes images as one archive: docker's ("" or FormatDocker), which is
// an OCI layout with docker's manifest.json beside it, as current docker writes
// it, or a plain OCI layout. Layers are uncompressed, with their exact bytes;
// the same images give the same archive. A ref that is a name is in the archive
// as a tag, an id is not; a name without a tag stands for all tags of it that are
// here. An image that is not for platform is an error; "" takes any. After an
// error w holds a part of an archive.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string, format, platform string) error {
	if format == "" {
		format = FormatDocker
	}
	if format != FormatDocker && format != FormatOCI {
		return fmt.Errorf("save: format %q is not docker or oci", clip(format))
	}
	images, release, err := s.collect(refs)
	defer release()
	if err == nil {
		err = allFit(images, platform)
	}
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	a := &archiveWriter{ctx: ctx, s: s, w: tar.NewWriter(w), written: map[string]int64{}}
	if err := a.write(images, format); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// savedRef is an image to save with the tags it goes by.
type savedRef struct {
	img  *Image
	tags []reference.NamedTagged
}

func allFit(images []*savedRef, platform string) error {
	if platform == "" {
		return nil
	}
	for _, r := range images {
		fits, err := r.img.Fits(platform)
		if err != nil {
			return err
		}
		if !fits {
			return fmt.Errorf("%w: image %s is for %s, not for %s", ErrPlatform, shortID(r.img.ID), r.img.Platform, clip(platform))
		}
	}
	return nil
}

// withTags puts all tags that are here in the place of a name without one.
func (s *Store) withTags(refs []string) ([]string, error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, ref := range refs {
		tags := x.tags(ref)
		if len(tags) == 0 {
			tags = []string{ref}
		}
		all = append(all, tags...)
	}
	return all, nil
}

// tags are the names that images have in a repository, sorted; none if ref is
// more than a repository.
func (x *index) tags(ref string) []string {
	repo, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(repo) {
		return nil
	}
	var tags []string
	for _, r := range x.records {
		for _, n := range r.Names {
			if t, err := parseTarget(n); err == nil && t.kind == fromRegistry && t.named.Name() == repo.Name() {
				tags = append(tags, n)
			}
		}
	}
	slices.Sort(tags)
	return tags
}

// collect finds and holds the images, each one once. release is never nil.
func (s *Store) collect(refs []string) (images []*savedRef, release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	if len(refs) == 0 {
		return nil, release, fmt.Errorf("%w: no image named", ErrReference)
	}
	if refs, err = s.withTags(refs); err != nil {
		return nil, release, err
	}
	for _, ref := range refs {
		img, free, err := s.Hold(ref)
		if err != nil {
			return nil, release, err
		}
		held = append(held, free)
		i := slices.IndexFunc(images, func(o *savedRef) bool { return o.img.ID == img.ID })
		if i < 0 {
			i, images = len(images), append(images, &savedRef{img: img})
		}
		t, err := parseTarget(ref)
		if err != nil || !slices.Contains(img.Names, t.String()) {
			continue // an id
		}
		if tagged, ok := t.named.(reference.NamedTagged); ok && !images[i].has(tagged) {
			images[i].tags = append(images[i].tags, tagged)
		}
	}
	return images, release, nil
}

func (r *savedRef) has(tag reference.NamedTagged) bool {
	return slices.ContainsFunc(r.tags, func(o reference.NamedTagged) bool { return o.String() == tag.String() })
}

// archiveWriter writes an archive entry by entry.
type archiveWriter struct {
	ctx     context.Context
	s       *Store
	w       *tar.Writer
	written map[string]int64 // sizes of the blobs that are in
}

func (a *archiveWriter) write(images []*savedRef, format string) error {
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := a.header(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	x.SchemaVersion = 2
	var saved []savedImage
	for _, r := range images {
		entries, err := a.image(r)
		if err != nil {
			return fmt.Errorf("image %s: %w", shortID(r.img.ID), err)
		}
		x.Manifests = append(x.Manifests, entries...)
		saved = append(saved, r.saved())
	}
	if err := a.json(ocispec.ImageIndexFile, x); err != nil {
		return err
	}
	if format == FormatDocker {
		if err := a.json(fileManifest, saved); err != nil {
			return err
		}
	}
	if err := a.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return a.w.Close()
}

// saved is the image's entry in manifest.json.
func (r *savedRef) saved() savedImage {
	m := savedImage{Config: blobName(r.img.ID), Layers: []string{}}
	for _, t := range r.tags {
		m.RepoTags = append(m.RepoTags, reference.FamiliarString(t))
	}
	for _, d := range r.img.DiffIDs {
		m.Layers = append(m.Layers, blobName(d))
	}
	return m
}

// image writes the blobs of an image and returns its entries in index.json,
// one for each tag.
func (a *archiveWriter) image(r *savedRef) ([]ocispec.Descriptor, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	for _, d := range r.img.DiffIDs {
		n, err := a.layer(d)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayer, Digest: digest.Digest(d), Size: n})
	}
	m.Config = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig, Digest: digest.Digest(r.img.ID), Size: int64(len(r.img.Raw))}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	for _, b := range [][]byte{r.img.Raw, raw} {
		if err := a.blob(digestOf(b), b); err != nil {
			return nil, err
		}
	}
	p := r.img.Config.Platform
	entry := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.Digest(digestOf(raw)), Size: int64(len(raw))}
	if p.OS != "" && p.Architecture != "" {
		entry.Platform = &p
	}
	if len(r.tags) == 0 {
		return []ocispec.Descriptor{entry}, nil
	}
	var entries []ocispec.Descriptor
	for _, t := range r.tags {
		entry.Annotations = map[string]string{annotationName: t.String(), annotationRef: t.Tag()}
		entries = append(entries, entry)
	}
	return entries, nil
}

// layer writes the exact tar stream of a layer.
func (a *archiveWriter) layer(diffID string) (int64, error) {
	if n, ok := a.written[diffID]; ok {
		return n, nil
	}
	n, err := a.layerSize(diffID)
	if err != nil {
		return 0, fmt.Errorf("measure layer %s: %w", shortID(diffID), err)
	}
	r, err := a.s.layers.LayerTar(diffID)
	if err != nil {
		return 0, fmt.Errorf("read layer %s: %w", shortID(diffID), err)
	}
	defer r.Close()
	if err := a.header(&tar.Header{Name: blobName(diffID), Size: n}); err != nil {
		return 0, err
	}
	if _, err := io.Copy(a.w, &ctxReader{ctx: a.ctx, r: r}); err != nil {
		return 0, fmt.Errorf("write layer %s: %w", shortID(diffID), err)
	}
	a.written[diffID] = n
	return n, nil
}

// layerSize is the length of a layer's tar, which must be known before it.
func (a *archiveWriter) layerSize(diffID string) (int64, error) {
	if t, ok := a.s.layers.(TarSizer); ok {
		return t.LayerTarSize(diffID)
	}
	r, err := a.s.layers.LayerTar(diffID)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, &ctxReader{ctx: a.ctx, r: r})
}

func (a *archiveWriter) blob(digest string, b []byte) error {
	if _, ok := a.written[digest]; ok {
		return nil
	}
	a.written[digest] = int64(len(b))
	return a.file(blobName(digest), b)
}

func (a *archiveWriter) json(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return a.file(name, b)
}

func (a *archiveWriter) file(name string, b []byte) error {
	if err := a.header(&tar.Header{Name: name, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err := io.Copy(a.w, bytes.NewReader(b))
	return err
}

// header writes a header in which nothing varies.
func (a *archiveWriter) header(h *tar.Header) error {
	if h.Typeflag == 0 {
		h.Typeflag, h.Mode = tar.TypeReg, 0o644
	}
	h.ModTime, h.Format = time.Unix(0, 0), tar.FormatUSTAR
	if h.Size >= 8<<30 {
		h.Format = tar.FormatGNU // ustar ends there
	}
	return a.w.WriteHeader(h)
}
