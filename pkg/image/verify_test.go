package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestWrongContent: each document of an image is replaced by another one of the
// same length, under the digest of the first.
func TestWrongContent(t *testing.T) {
	r := newRegistry(t)
	img := simple(t, 1)
	r.push(t, "a", "amd", img)
	d := img.descriptor(plat("linux/amd64"))
	r.pushIndex(t, "a", "all", d)
	for name, tc := range map[string]struct{ ref, path string }{
		"manifest by digest": {"@" + digestOf(img.manifest), "/manifests/" + digestOf(img.manifest)},
		"manifest of index":  {":all", "/manifests/" + digestOf(img.manifest)},
		"config":             {":amd", "/blobs/" + digestOf(img.config)},
	} {
		t.Run(name, func(t *testing.T) {
			asked := false
			r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasSuffix(q.URL.Path, tc.path) {
					return false
				}
				asked = true
				b := img.manifest
				if name == "config" {
					b = img.config
				} else {
					w.Header().Set("Content-Type", img.m.MediaType)
				}
				w.Write(sameLength(b))
				return true
			})
			s, layers := newStore(t, fast())
			_, err := s.Pull(t.Context(), r.host+"/a"+tc.ref, PullOptions{Platform: "linux/amd64"})
			wantErr(t, err, ErrInvalid, "wrong content")
			if !asked {
				t.Error("the fault was never served")
			}
			checkEmpty(t, s, layers)
		})
	}
}

// sameLength is another document of the same length and form: one digit of a
// digest in it differs.
func sameLength(b []byte) []byte {
	out := bytes.Clone(b)
	i := bytes.LastIndex(out, []byte("sha256:")) + 10
	if out[i]++; !isHex(string(out[i])) {
		out[i] = '0'
	}
	return out
}

// TestLyingIndex: in an archive, as from a registry, the config has the last
// word about the platform.
func TestLyingIndex(t *testing.T) {
	arm := makeImage(t, imageSpec{platform: *plat("linux/arm64"), layers: simpleLayers(t, 1)})
	nested := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{arm.descriptor(plat("linux/amd64"))}}
	nested.SchemaVersion = 2
	raw := mustJSON(t, nested)
	entries := layoutEntries(t, map[string]*testImage{"": arm}, func(x *ocispec.Index) {
		x.Manifests[0] = ocispec.Descriptor{MediaType: nested.MediaType, Digest: dig(raw), Size: int64(len(raw))}
	})
	entries = append(entries, entry{name: blobName(digestOf(raw)), body: raw})
	s, layers := newStore(t, fast())
	ok, err := parsePlatform("")
	if err != nil {
		t.Fatal(err)
	}
	if ok.Architecture != "amd64" {
		t.Skip("the index of this test lies about amd64")
	}
	_, err = s.Load(t.Context(), bytes.NewReader(makeTar(t, entries...)), LoadOptions{})
	wantErr(t, err, ErrPlatform, "available: linux/arm64")
	checkEmpty(t, s, layers)
}

// failingLayers gives up after its first read.
type failingLayers struct {
	*diskLayers
	err error
}

func (f *failingLayers) AddLayer(_ context.Context, _ string, r io.Reader) error {
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return err
	}
	return f.err
}

// TestStoreFails: when the LayerStore gives up, the pull ends at once, whether
// the registry has more to send or has gone silent. Without that this test
// hangs.
func TestStoreFails(t *testing.T) {
	layer := bigLayer(t, 4<<20)
	r := newRegistry(t)
	ref := r.push(t, "a", "b", makeImage(t, imageSpec{layers: []testLayer{layer}}))
	full := errors.New("no space left")
	for name, silent := range map[string]bool{"more to send": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
				if !silent || !strings.HasSuffix(q.URL.Path, digestOf(layer.stored)) {
					return false
				}
				w.Write(serve(w, q, layer.stored, true)[:300<<10]) // more than one piece of readAhead
				w.(http.Flusher).Flush()
				<-q.Context().Done()
				return true
			})
			o := fast()
			o.IdleTimeout = time.Hour
			s, layers := newStore(t, o)
			s.layers = &failingLayers{layers, full}
			_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
			wantErr(t, err, full, "add layer")
			checkEmpty(t, s, layers)
		})
	}
}

// TestLayerReaderReadsToTheEnd: bytes after the end of a compressed stream
// belong to the blob, and to its digest.
func TestLayerReaderReadsToTheEnd(t *testing.T) {
	plain := layerTar(t, "a", []byte("x"))
	stored := zst(t, plain)
	stored = append(stored, 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4) // a skippable frame
	for _, cut := range []int{0, 1, 12} {
		b := stored[:len(stored)-cut]
		r := &layerReader{ctx: t.Context(), layer: &layerBlob{digest: digestOf(stored), size: int64(len(stored)),
			open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}}
		got, err := io.ReadAll(r)
		r.Close()
		if cut == 0 && (err != nil || !bytes.Equal(got, plain)) {
			t.Errorf("whole: %d bytes, %v", len(got), err)
		}
		if cut > 0 && !errors.Is(err, ErrInvalid) {
			t.Errorf("cut by %d: %v", cut, err)
		}
		if _, again := r.Read(make([]byte, 1)); again == nil || (err == nil) != (again == io.EOF) {
			t.Errorf("cut by %d: the next read gives %v after %v", cut, again, err)
		}
	}
}
