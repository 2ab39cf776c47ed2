package image

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestHostileDocuments(t *testing.T) {
	desc := func(mt string, size string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%s}`, mt, someDigest, size)
	}
	config := `"config":` + desc(ocispec.MediaTypeImageConfig, "2")
	layer := desc(ocispec.MediaTypeImageLayerGzip, "2")
	index := `"manifests":[` + desc(ocispec.MediaTypeImageManifest, "2") + `]`
	for name, tc := range map[string]struct{ mediaType, raw, says string }{
		"both":            {"", `{"schemaVersion":2,` + config + `,"layers":[` + layer + `],` + index + `}`, "not clearly"},
		"both, by case":   {"", `{"schemaVersion":2,` + config + `,"layers":[],"Manifests":[]}`, "not clearly"},
		"neither":         {"", `{"schemaVersion":2}`, "not clearly"},
		"index as image":  {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + index + `}`, "does not fit"},
		"image as index":  {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,` + config + `,"layers":[]}`, "does not fit"},
		"says index":      {"", `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `",` + config + `,"layers":[]}`, "does not fit"},
		"two types":       {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` + config + `,"layers":[]}`, "served as"},
		"schema 1":        {"", `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + someDigest + `"}]}`, "schema 1"},
		"schema 1 signed": {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`, "schema 1"},
		"helm chart":      {"", `{"schemaVersion":2,"config":` + desc("application/vnd.cncf.helm.config.v1+json", "2") + `,"layers":[]}`, "not a container image"},
		"odd layer":       {"", `{"schemaVersion":2,` + config + `,"layers":[` + desc("application/vnd.in-toto+json", "2") + `]}`, "not supported"},
		"encrypted":       {"", `{"schemaVersion":2,` + config + `,"layers":[` + desc(ocispec.MediaTypeImageLayerGzip+"+encrypted", "2") + `]}`, "encrypted"},
		"negative size":   {"", `{"schemaVersion":2,` + config + `,"layers":[` + desc(ocispec.MediaTypeImageLayer, "-1") + `]}`, "size -1"},
		"huge size":       {"", `{"schemaVersion":2,` + config + `,"layers":[` + desc(ocispec.MediaTypeImageLayer, "4611686018427387904") + `]}`, "size 46116"},
		"float size":      {"", `{"schemaVersion":2,` + config + `,"layers":[` + desc(ocispec.MediaTypeImageLayer, "1e30") + `]}`, "decode"},
		"huge config":     {"", `{"schemaVersion":2,"config":` + desc(ocispec.MediaTypeImageConfig, "100000000") + `,"layers":[]}`, "config"},
		"bad digest":      {"", `{"schemaVersion":2,"config":{"digest":"sha256:../../../../etc/passwd","size":2},"layers":[]}`, "digest"},
		"index bad":       {"", `{"schemaVersion":2,"manifests":[{"digest":"sha512:abc","size":2}]}`, "sha512 is not supported"},
		"index huge":      {"", `{"schemaVersion":2,"manifests":[` + desc(ocispec.MediaTypeImageManifest, "99999999999") + `]}`, "size"},
		"10k layers":      {"", `{"schemaVersion":2,` + config + `,"layers":[` + strings.Repeat(layer+",", 9999) + layer + `]}`, "10000 layers"},
		"not json":        {"", `<html>`, "decode"},
		"array":           {"", `[]`, "decode"},
		"null":            {"", `null`, "not clearly"},
		"trailing":        {"", `{"schemaVersion":2} {}`, "decode"},
		"too large":       {"", strings.Repeat(" ", maxDocument+1), "larger"},
	} {
		_, err := decodeDocument([]byte(tc.raw), tc.mediaType)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		t.Run(name, func(t *testing.T) { wantErr(t, err, ErrInvalid, tc.says) })
	}
}

func TestHostileConfigs(t *testing.T) {
	many := strings.Repeat(`"`+someDigest+`",`, maxLayers) + `"` + someDigest + `"`
	for name, tc := range map[string]struct{ raw, says string }{
		"empty":       {``, "decode"},
		"not json":    {`x`, "decode"},
		"rootfs type": {`{"rootfs":{"type":"snapshots"}}`, "snapshots"},
		"diff id":     {`{"rootfs":{"diff_ids":["sha256:../../x"]}}`, "diff_ids[0]"},
		"many":        {`{"rootfs":{"diff_ids":[` + many + `]}}`, "129 layers"},
		"history":     {`{"rootfs":{"diff_ids":[]},"history":[{}]}`, "history makes 1"},
	} {
		_, _, err := decodeConfig([]byte(tc.raw))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		t.Run(name, func(t *testing.T) { wantErr(t, err, ErrInvalid, tc.says) })
	}
}

// TestPullRefuses runs whole pulls against what a hostile registry may serve.
func TestPullRefuses(t *testing.T) {
	plain := layerTar(t, "a", []byte("hello"))
	other := layerTar(t, "a", []byte("HELLO"))
	zeros := layerTar(t, "a", make([]byte, 4<<20))
	one := testLayer{plain, gz(t, plain), ""}
	layer := func(l testLayer) imageSpec { return imageSpec{layers: []testLayer{l}} }
	edit := func(f func(c *ocispec.Image, m *ocispec.Manifest)) imageSpec {
		return imageSpec{layers: []testLayer{one}, edit: f}
	}
	for name, tc := range map[string]struct {
		spec imageSpec
		is   error
		says string
	}{
		"another tar":    {layer(testLayer{other, gz(t, plain), ""}), nil, "diffID mismatch"},
		"cut gzip":       {layer(testLayer{plain, gz(t, plain)[:60], ""}), ErrInvalid, "decompress"},
		"gzip garbage":   {layer(testLayer{plain, append(gz(t, plain), "garbage"...), ""}), ErrInvalid, "decompress"},
		"cut zstd":       {layer(testLayer{zeros, zst(t, zeros)[:20], ""}), ErrInvalid, "decompress"},
		"xz":             {layer(testLayer{plain, []byte("\xfd7zXZ\x00garbage"), ""}), ErrInvalid, "xz"},
		"empty blob":     {layer(testLayer{plain, nil, ""}), nil, "mismatch"},
		"layer too many": {edit(func(_ *ocispec.Image, m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }), ErrInvalid, "manifest has 2 layers, config's diff_ids name 1"},
		"layer too few":  {edit(func(_ *ocispec.Image, m *ocispec.Manifest) { m.Layers = nil }), ErrInvalid, "diff_ids name 1"},
		"history":        {edit(func(c *ocispec.Image, _ *ocispec.Manifest) { c.History = make([]ocispec.History, 2) }), ErrInvalid, "history makes 2 layers"},
		"size too small": {edit(func(_ *ocispec.Image, m *ocispec.Manifest) { m.Layers[0].Size-- }), ErrInvalid, "the manifest says"},
		"size too big":   {edit(func(_ *ocispec.Image, m *ocispec.Manifest) { m.Layers[0].Size++ }), ErrInvalid, "the manifest says"},
		"platform":       {imageSpec{platform: *plat("linux/arm64"), layers: []testLayer{one}}, ErrPlatform, "wanted linux/amd64, available: linux/arm64"},
		"windows":        {imageSpec{platform: *plat("windows/amd64"), layers: []testLayer{one}}, ErrPlatform, "windows/amd64"},
		"config size":    {edit(func(_ *ocispec.Image, m *ocispec.Manifest) { m.Config.Digest, m.Config.Size = dig(one.stored), 7 }), ErrInvalid, "says 7"},
		"config no json": {edit(func(_ *ocispec.Image, m *ocispec.Manifest) {
			m.Config.Digest, m.Config.Size = dig(one.stored), int64(len(one.stored))
		}), ErrInvalid, "decode config"},
		"foreign layer": {edit(func(_ *ocispec.Image, m *ocispec.Manifest) {
			m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
			m.Layers[0].Digest = digest.Digest(someDigest)
			m.Layers[0].URLs = []string{"http://127.0.0.1:1/layer"}
		}), ErrNotFound, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t)
			s, layers := newStore(t, fast())
			_, err := s.Pull(t.Context(), r.push(t, "a", "b", makeImage(t, tc.spec)), PullOptions{Platform: "linux/amd64"})
			wantErr(t, err, tc.is, tc.says, "pull "+r.host+"/a:b")
			checkEmpty(t, s, layers)
		})
	}
}

// TestForeignURLIsNotFollowed: a layer's urls are a way to make us fetch
// anything, with a digest that somebody else chose.
func TestForeignURLIsNotFollowed(t *testing.T) {
	r, elsewhere := newRegistry(t), newRegistry(t)
	img := makeImage(t, imageSpec{layers: simpleLayers(t, 1), edit: func(_ *ocispec.Image, m *ocispec.Manifest) {
		m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		m.Layers[0].URLs = []string{elsewhere.URL + "/layer"}
	}})
	s, _ := newStore(t, fast())
	if _, err := s.Pull(t.Context(), r.push(t, "a", "b", img), PullOptions{Platform: "linux/amd64"}); err != nil {
		t.Fatal(err) // the registry itself has it
	}
	if n := elsewhere.count("GET", ""); n != 0 {
		t.Errorf("%d requests went to the layer's urls", n)
	}
}

func simpleLayers(t testing.TB, n int) (all []testLayer) {
	for i := range n {
		plain := layerTar(t, fmt.Sprintf("f%d", i), bytes.Repeat([]byte{byte(i)}, 1000))
		all = append(all, testLayer{plain, gz(t, plain), ""})
	}
	return all
}

func TestIndexes(t *testing.T) {
	r := newRegistry(t)
	arm := makeImage(t, imageSpec{platform: *plat("linux/arm64"), layers: simpleLayers(t, 1)})
	amd := simple(t, 2)
	r.push(t, "a", "arm", arm)
	r.push(t, "a", "amd", amd)
	note := arm.descriptor(plat("unknown/unknown"))
	note.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	ref := r.pushIndex(t, "a", "all", note, arm.descriptor(plat("linux/arm64/v8")), amd.descriptor(plat("linux/amd64")))
	s, _ := newStore(t, fast())
	for platform, want := range map[string]*testImage{"linux/amd64": amd, "linux/arm64": arm} {
		img, err := s.Pull(t.Context(), ref, PullOptions{Platform: platform})
		if err != nil || img.ID != digestOf(want.config) || img.Platform != platform {
			t.Errorf("%s: %+v, %v", platform, img, err)
		}
	}
	_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/s390x"})
	wantErr(t, err, ErrPlatform, "available: linux/arm64/v8, linux/amd64")

	// An index whose entry lies about the platform is found out by the config.
	ref = r.pushIndex(t, "a", "lie", arm.descriptor(plat("linux/amd64")))
	_, err = s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
	wantErr(t, err, ErrPlatform, "wanted linux/amd64, available: linux/arm64")
}

func TestNestedIndexes(t *testing.T) {
	r := newRegistry(t)
	amd := simple(t, 1)
	r.push(t, "a", "amd", amd)
	d := amd.descriptor(plat("linux/amd64"))
	for depth := 1; depth <= maxIndexDepth+1; depth++ {
		x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}
		x.SchemaVersion = 2
		raw := mustJSON(t, x)
		tag := fmt.Sprintf("deep%d", depth)
		r.put(t, "/v2/a/manifests/"+tag, x.MediaType, raw)
		d = ocispec.Descriptor{MediaType: x.MediaType, Digest: dig(raw), Size: int64(len(raw)), Platform: plat("linux/amd64")}
		s, layers := newStore(t, fast())
		_, err := s.Pull(t.Context(), r.host+"/a:"+tag, PullOptions{Platform: "linux/amd64"})
		if depth <= maxIndexDepth && err != nil {
			t.Errorf("depth %d: %v", depth, err)
		}
		if depth > maxIndexDepth {
			wantErr(t, err, ErrInvalid, "nested")
			checkEmpty(t, s, layers)
		}
	}
}

func TestPullByDigest(t *testing.T) {
	r := newRegistry(t)
	img := simple(t, 1)
	r.push(t, "a", "b", img)
	s, _ := newStore(t, fast())
	ref := r.host + "/a:ignored@" + digestOf(img.manifest)
	got, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
	if err != nil || len(got.Names) != 0 || len(got.Digests) != 1 || got.Digests[0] != r.host+"/a@"+digestOf(img.manifest) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, by := range []string{ref, got.Digests[0]} {
		if again, err := s.Get(by); err != nil || again.ID != got.ID {
			t.Errorf("Get(%s): %v", by, err)
		}
	}
	_, err = s.Get(r.host + "/a:ignored")
	wantErr(t, err, ErrNotFound)
	_, err = s.Get(r.host + "/other@" + digestOf(img.manifest))
	wantErr(t, err, ErrNotFound)
}
