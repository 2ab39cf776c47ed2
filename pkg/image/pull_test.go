package image

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func dig(b []byte) digest.Digest { return digest.Digest(digestOf(b)) }

func TestPullGetList(t *testing.T) {
	r := newRegistry(t)
	ref := r.push(t, "team/app", "v1", simple(t, 5))
	s, layers := newStore(t, fast())
	if _, err := s.Get(ref); err == nil {
		t.Fatal("found before it was pulled")
	}
	var p events
	img, err := s.Pull(t.Context(), ref, PullOptions{Progress: &p, Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if len(img.DiffIDs) != 5 || img.Platform != "linux/amd64" || img.Config.Config.Cmd[0] != "/bin/true" {
		t.Errorf("pulled image is %+v", img)
	}
	for _, d := range img.DiffIDs {
		if !layers.HasLayer(d) {
			t.Errorf("layer %s is missing", d)
		}
	}
	for _, want := range []string{"pulling", "extracting", "done"} {
		if n := len(slices.DeleteFunc(slices.Clone(p.all), func(e string) bool { return e[13:] != want })); n < 5 {
			t.Errorf("%d layers reported %q, want 5: %q", n, want, p.all)
		}
	}
	for _, by := range []string{ref, img.ID, img.ID[7:], img.ID[7:12], img.ID[:12], img.Digests[0]} {
		got, err := s.Get(by)
		if err != nil || got.ID != img.ID {
			t.Errorf("Get(%s) = %v, %v", by, got, err)
		}
	}
	list, errs := s.List()
	if len(list) != 1 || len(errs) != 0 || !slices.Equal(list[0].Names, []string{ref}) {
		t.Errorf("List() = %+v, %v", list, errs)
	}
}

func TestPullAgainFetchesNoLayer(t *testing.T) {
	r := newRegistry(t)
	ref := r.push(t, "app", "v1", simple(t, 2))
	s, _ := newStore(t, fast())
	if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "amd64"}); err != nil {
		t.Fatal(err)
	}
	r.intercept(nil)
	if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "amd64"}); err != nil {
		t.Fatal(err)
	}
	if n := r.count("GET", "/blobs/"); n != 1 { // the config
		t.Errorf("second pull read %d blobs, want 1", n)
	}
}

func TestPullFormats(t *testing.T) {
	plain := layerTar(t, "a", []byte("hello"))
	more := layerTar(t, "b", []byte("world"))
	split := append(gz(t, plain[:700]), gz(t, plain[700:])...)
	for name, spec := range map[string]imageSpec{
		"oci gzip":     {layers: []testLayer{{plain, gz(t, plain), ""}}},
		"docker gzip":  {docker: true, layers: []testLayer{{plain, gz(t, plain), ""}}},
		"zstd":         {layers: []testLayer{{plain, zst(t, plain), ocispec.MediaTypeImageLayerZstd}}},
		"plain":        {layers: []testLayer{{plain, plain, ocispec.MediaTypeImageLayer}}},
		"wrong type":   {layers: []testLayer{{plain, zst(t, plain), ocispec.MediaTypeImageLayerGzip}}},
		"multistream":  {layers: []testLayer{{plain, split, ""}}},
		"zstd frames":  {layers: []testLayer{{plain, append(zst(t, plain[:100]), zst(t, plain[100:])...), ocispec.MediaTypeImageLayerZstd}}},
		"same twice":   {layers: []testLayer{{plain, gz(t, plain), ""}, {plain, gz(t, plain), ""}}},
		"mixed":        {layers: []testLayer{{plain, gz(t, plain), ""}, {more, zst(t, more), ""}}},
		"no layer":     {},
		"with history": {layers: []testLayer{{plain, gz(t, plain), ""}}, edit: func(c *ocispec.Image, _ *ocispec.Manifest) { c.History = []ocispec.History{{EmptyLayer: true}, {}} }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t)
			want := makeImage(t, spec)
			s, layers := newStore(t, fast())
			img, err := s.Pull(t.Context(), r.push(t, "a", "b", want), PullOptions{Platform: "linux/amd64"})
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != digestOf(want.config) || img.Manifest != digestOf(want.manifest) {
				t.Errorf("got %s %s", img.ID, img.Manifest)
			}
			for id, n := range layers.reads {
				if n != 1 {
					t.Errorf("layer %s was read %d times", id, n)
				}
			}
		})
	}
}
