package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layerTar makes a tar stream with one file.
func layerTar(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	return makeTar(t, entry{name: name, body: content})
}

type entry struct {
	name, link string
	body       []byte
	kind       byte
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Mode: 0o644, Size: int64(len(e.body)), Typeflag: e.kind}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// testImage is an image being made.
type testImage struct {
	blobs    map[string][]byte // config and layers by digest
	config   []byte
	manifest []byte
	m        ocispec.Manifest
	c        ocispec.Image
}

// imageSpec says how a test image looks. Layers are as stored, Plain is what
// they hold.
type imageSpec struct {
	docker   bool
	platform ocispec.Platform
	layers   []testLayer
	edit     func(c *ocispec.Image, m *ocispec.Manifest)
}

type testLayer struct {
	plain, stored []byte
	mediaType     string
}

func makeImage(t testing.TB, spec imageSpec) *testImage {
	t.Helper()
	img := &testImage{blobs: map[string][]byte{}}
	c := ocispec.Image{Platform: spec.platform}
	if c.OS == "" {
		c.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	c.Config = ocispec.ImageConfig{Env: []string{"A=b"}, Cmd: []string{"/bin/true"}}
	c.RootFS.Type = "layers"
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, l := range spec.layers {
		mt := l.mediaType
		if mt == "" {
			mt = ocispec.MediaTypeImageLayerGzip
		}
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, dig(l.plain))
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mt, Digest: dig(l.stored), Size: int64(len(l.stored))})
		img.blobs[digestOf(l.stored)] = l.stored
	}
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	if spec.docker {
		m.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
		m.Config.MediaType = "application/vnd.docker.container.image.v1+json"
		for i := range m.Layers {
			m.Layers[i].MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		}
	}
	if spec.edit != nil {
		spec.edit(&c, &m)
	}
	img.config = mustJSON(t, c)
	img.blobs[digestOf(img.config)] = img.config
	if m.Config.Digest == "" {
		m.Config.Digest, m.Config.Size = dig(img.config), int64(len(img.config))
	}
	img.manifest, img.m, img.c = mustJSON(t, m), m, c
	return img
}

func (i *testImage) descriptor(p *ocispec.Platform) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: i.m.MediaType, Digest: dig(i.manifest), Size: int64(len(i.manifest)), Platform: p}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// simple is an image of n small gzip layers.
func simple(t testing.TB, n int) *testImage {
	t.Helper()
	var layers []testLayer
	for i := range n {
		plain := layerTar(t, fmt.Sprintf("file%d", i), bytes.Repeat([]byte{byte(i)}, 1000))
		layers = append(layers, testLayer{plain: plain, stored: gz(t, plain)})
	}
	return makeImage(t, imageSpec{layers: layers})
}
