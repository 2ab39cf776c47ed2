package image

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxChildren bounds the manifests of an index that are read for one look.
const maxChildren = 128

// RemoteManifest is a manifest or index as a registry has it.
type RemoteManifest struct {
	// Ref is the whole name of it; the entries of an index have their digest.
	Ref        string
	Descriptor ocispec.Descriptor
	IsIndex    bool
	Raw        []byte // as received
}

// RemoteOptions tune a look into a registry.
type RemoteOptions struct {
	// Details asks for the platform of a manifest, and for the manifests of an
	// index.
	Details bool
	// Insecure takes any certificate, and plain HTTP where there is no TLS.
	Insecure bool
}

// RemoteManifests reads what a name means in its registry, without storing
// anything. With Details, the manifests of an index follow it.
func (s *Store) RemoteManifests(ctx context.Context, ref string, o RemoteOptions) ([]RemoteManifest, error) {
	t, err := parseTarget(ref)
	if err == nil && t.kind != fromRegistry {
		err = fmt.Errorf("%w: %q is no name in a registry", ErrReference, clip(ref))
	}
	if err != nil {
		return nil, err
	}
	all, err := s.remoteManifests(ctx, t, o)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", t, err)
	}
	return all, nil
}

func (s *Store) remoteManifests(ctx context.Context, t target, o RemoteOptions) ([]RemoteManifest, error) {
	m, err := s.openRemote(t)
	if err != nil {
		return nil, err
	}
	defer m.close()
	if o.Insecure {
		m.trustAll()
	}
	raw, mediaType, err := m.top(ctx)
	if err != nil {
		return nil, err
	}
	doc, err := decodeDocument(raw, mediaType)
	if err != nil {
		return nil, err
	}
	top := RemoteManifest{Ref: t.named.String(), IsIndex: doc.index != nil, Raw: raw, Descriptor: ocispec.Descriptor{
		MediaType: mediaType, Digest: digest.Digest(digestOf(raw)), Size: int64(len(raw))}}
	switch {
	case !o.Details:
		return []RemoteManifest{top}, nil
	case doc.index != nil:
		children, err := m.children(ctx, doc.index)
		return append([]RemoteManifest{top}, children...), err
	}
	config, err := fetchConfig(ctx, m, doc.manifest.Config)
	if err != nil {
		return nil, err
	}
	c, _, err := decodeConfig(config)
	if err != nil {
		return nil, err
	}
	top.Descriptor.Platform = &c.Platform
	return []RemoteManifest{top}, nil
}

// trustAll is for whoever asks for it by name: no host needs to prove who it is.
func (m *remote) trustAll() {
	for _, p := range m.places {
		p.tls.skipVerify = true
		p.s.o.Insecure = func(string) bool { return true }
	}
}

func (m *remote) children(ctx context.Context, x *ocispec.Index) ([]RemoteManifest, error) {
	if len(x.Manifests) > maxChildren {
		return nil, fmt.Errorf("%w: index has %d entries, at most %d are read", ErrInvalid, len(x.Manifests), maxChildren)
	}
	var all []RemoteManifest
	for _, d := range x.Manifests {
		raw, err := fetchManifest(ctx, m, d)
		if err != nil {
			return nil, err
		}
		all = append(all, RemoteManifest{
			Ref:        reference.TagNameOnly(m.t.named).String() + "@" + d.Digest.String(),
			Descriptor: d, IsIndex: isIndexType(d.MediaType), Raw: raw,
		})
	}
	return all, nil
}
