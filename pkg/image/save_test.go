package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// storeWith loads an image under names into a new store.
func storeWith(t testing.TB, images map[string]*testImage) (*Store, *diskLayers) {
	t.Helper()
	s, layers := newStore(t, fast())
	for names, img := range images {
		tags := mustJSON(t, strings.Fields(names))
		if _, err := s.Load(t.Context(), bytes.NewReader(legacyArchive(t, img, string(tags))), LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return s, layers
}

func save(t testing.TB, s *Store, format string, refs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(t.Context(), &b, refs, format, ""); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSaveLoad(t *testing.T) {
	one, two := simple(t, 3), simple(t, 2)
	s, _ := storeWith(t, map[string]*testImage{"app:v1 app:v2 example.com/a/b:c": one, "other:x": two})
	for _, format := range []string{"", FormatDocker, FormatOCI} {
		raw := save(t, s, format, "app:v2", "other:x", "app:v1", digestOf(one.config))
		if !bytes.Equal(raw, save(t, s, format, "app:v2", "other:x", "app:v1", digestOf(one.config))) {
			t.Errorf("%q: saved twice, got two archives", format)
		}
		back, layers := newStore(t, fast())
		images, err := back.Load(t.Context(), bytes.NewReader(raw), LoadOptions{})
		if err != nil {
			t.Fatalf("%q: %v", format, err)
		}
		var names []string
		for _, img := range images {
			names = append(names, img.Names...)
		}
		for _, want := range []string{"app:v1", "app:v2", "other:x"} {
			if !slices.Contains(names, want) {
				t.Errorf("%q: %s is not in %q", format, want, names)
			}
		}
		if slices.Contains(names, "example.com/a/b:c") || len(layers.kept(t)) != 3 { // the two share their layers
			t.Errorf("%q: too much came back: %q, %d layers", format, names, len(layers.kept(t)))
		}
		got, err := back.Get("app:v1")
		if err != nil || got.ID != digestOf(one.config) {
			t.Errorf("%q: app:v1 is %v, %v", format, got, err)
		}
	}
	// By id: the image without a name.
	back, _ := newStore(t, fast())
	images, err := back.Load(t.Context(), bytes.NewReader(save(t, s, "", digestOf(two.config)[7:20])), LoadOptions{})
	if err != nil || len(images) != 1 || len(images[0].Names) != 0 {
		t.Errorf("saved by id: %+v, %v", images, err)
	}
}

// TestSaveOracles: what Save writes is read by skopeo and umoci, in both
// formats, with the exact layers.
func TestSaveOracles(t *testing.T) {
	img := simple(t, 3)
	s, _ := storeWith(t, map[string]*testImage{"app:v1 example.com/a/b:c": img})
	dir := t.TempDir()
	for format, source := range map[string]string{
		FormatDocker: "docker-archive:%s:docker.io/library/app:v1",
		FormatOCI:    "oci-archive:%s:v1",
	} {
		file := filepath.Join(dir, format+".tar")
		if err := os.WriteFile(file, save(t, s, format, "app:v1", "example.com/a/b:c"), 0o644); err != nil {
			t.Fatal(err)
		}
		source = fmt.Sprintf(source, file)
		raw := runTool(t, "skopeo", "inspect", "--config", "--raw", source)
		if digestOf([]byte(raw)) != digestOf(img.config) {
			t.Errorf("%s: skopeo reads another config: %s", format, raw)
		}
		layout := filepath.Join(dir, format)
		runTool(t, "skopeo", "--insecure-policy", "copy", source, "oci:"+layout+":v1")
		stat := runTool(t, "umoci", "stat", "--image", layout+":v1", "--json")
		if !json.Valid([]byte(stat)) {
			t.Errorf("%s: umoci stat: %s", format, stat)
		}
		// skopeo verified the digests, compressed anew; the diffIDs stay.
		back, layers := newStore(t, fast())
		got, err := back.Pull(t.Context(), "oci:"+layout+":v1", PullOptions{Platform: "linux/amd64"})
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != digestOf(img.config) || len(layers.kept(t)) != 3 {
			t.Errorf("%s: came back as %s with %d layers", format, got.ID, len(layers.kept(t)))
		}
		if out := runTool(t, "tar", "-tvf", file); strings.Contains(out, "..") {
			t.Errorf("%s: tar lists %s", format, out)
		}
	}
	// docker's current form is a layout too.
	runTool(t, "skopeo", "inspect", "oci-archive:"+filepath.Join(dir, "docker.tar")+":c")
}

// TestSkopeoWrites: what skopeo and umoci write is read here.
func TestSkopeoWrites(t *testing.T) {
	img := simple(t, 2)
	dir := writeDir(t, layoutEntries(t, map[string]*testImage{"v1": img}, nil))
	r := newRegistry(t)
	out := t.TempDir()
	for to, ref := range map[string]string{
		"docker-archive:" + out + "/d.tar:app:v1":    "docker-archive:" + out + "/d.tar:app:v1",
		"oci-archive:" + out + "/o.tar:v1":           "oci-archive:" + out + "/o.tar:v1",
		"oci:" + out + "/layout:v1":                  "oci:" + out + "/layout:v1",
		"docker://" + r.host + "/a/b:v1":             r.host + "/a/b:v1",
		"docker://" + r.host + "/a/b:zst --zstd":     r.host + "/a/b:zst",
		"docker://" + r.host + "/a/b:v2s2 --docker2": r.host + "/a/b:v2s2",
	} {
		args := []string{"--insecure-policy", "copy", "--dest-tls-verify=false", "oci:" + dir + ":v1"}
		to, flag, _ := strings.Cut(to, " ")
		switch flag {
		case "--zstd":
			args = append(args, "--dest-compress-format=zstd", "--dest-compress")
		case "--docker2":
			args = append(args, "--format=v2s2")
		}
		if strings.HasPrefix(to, "oci") || strings.HasPrefix(to, "docker-archive") {
			args = slices.DeleteFunc(args, func(a string) bool { return a == "--dest-tls-verify=false" })
		}
		runTool(t, "skopeo", append(args, to)...)
		s, layers := newStore(t, fast())
		got, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
		if err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		if !slices.Equal(got.DiffIDs, diffIDs(img)) || len(layers.kept(t)) != 2 {
			t.Errorf("%s: layers %v", to, got.DiffIDs)
		}
	}
	layout := filepath.Join(out, "umoci")
	runTool(t, "umoci", "init", "--layout", layout)
	runTool(t, "umoci", "new", "--image", layout+":none")
	s, _ := newStore(t, fast())
	got, err := s.Pull(t.Context(), "oci:"+layout+":none", PullOptions{Platform: "linux/amd64"})
	if err != nil || len(got.DiffIDs) != 0 {
		t.Errorf("an image without layers is listed: %+v, %v", got, err)
	}
}

func diffIDs(img *testImage) (ids []string) {
	for _, d := range img.c.RootFS.DiffIDs {
		ids = append(ids, d.String())
	}
	return ids
}

func TestSaveFails(t *testing.T) {
	img := simple(t, 2)
	s, layers := storeWith(t, map[string]*testImage{"app:v1": img})
	for name, tc := range map[string]struct {
		refs   []string
		format string
		is     error
	}{
		"no refs": {nil, "", ErrReference}, "unknown": {[]string{"app:v1", "nope"}, "", ErrNotFound}, "format": {[]string{"app:v1"}, "zip", nil},
	} {
		var b bytes.Buffer
		err := s.Save(t.Context(), &b, tc.refs, tc.format, "")
		t.Run(name, func(t *testing.T) { wantErr(t, err, tc.is, "save: ") })
		if b.Len() != 0 {
			t.Errorf("%s: %d bytes were written", name, b.Len())
		}
	}
	full := errors.New("disk full")
	wantErr(t, s.Save(t.Context(), failingWriter{full}, []string{"app:v1"}, "", ""), full)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, s.Save(ctx, io.Discard, []string{"app:v1"}, "", ""), context.Canceled)
	if err := os.Remove(layers.path(diffIDs(img)[0])); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.Save(t.Context(), io.Discard, []string{"app:v1"}, "", ""), ErrDamaged, "pull or load the image again")
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// TestSavedNames reads the tables of contents as docker would.
func TestSavedNames(t *testing.T) {
	s, _ := storeWith(t, map[string]*testImage{"nginx:1 localhost:5000/a:b": simple(t, 1)})
	tr := tar.NewReader(bytes.NewReader(save(t, s, FormatDocker, "nginx:1", "localhost:5000/a:b")))
	docs := map[string][]byte{}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Mode&0o022 != 0 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		if docs[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	saved, err := decodeSaved(docs[fileManifest])
	if err != nil || !slices.Equal(saved[0].RepoTags, []string{"nginx:1", "localhost:5000/a:b"}) {
		t.Errorf("%s: %+v, %v", fileManifest, saved, err)
	}
	var x ocispec.Index
	if err := json.Unmarshal(docs[ocispec.ImageIndexFile], &x); err != nil {
		t.Fatal(err)
	}
	if len(x.Manifests) != 2 || x.Manifests[0].Annotations[annotationName] != "docker.io/library/nginx:1" || x.Manifests[1].Annotations[annotationRef] != "b" {
		t.Errorf("index.json: %s", docs[ocispec.ImageIndexFile])
	}
}

// TestSaveRepository: a name without a tag is all its tags, as in docker.
func TestSaveRepository(t *testing.T) {
	one, two := simple(t, 1), simple(t, 2)
	s, _ := storeWith(t, map[string]*testImage{"app:v1 app:v2": one, "app:v3 other:x": two})
	back, _ := newStore(t, fast())
	images, err := back.Load(t.Context(), bytes.NewReader(save(t, s, "", "app")), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, img := range images {
		names = append(names, img.Names...)
	}
	if !slices.Equal(names, []string{"app:v1", "app:v2", "app:v3"}) {
		t.Errorf("came back: %q", names)
	}
	err = s.Save(t.Context(), io.Discard, []string{"app"}, "", "linux/arm64")
	wantErr(t, err, ErrPlatform, "is for linux/amd64, not for linux/arm64")
	if err := s.Save(t.Context(), io.Discard, []string{"app"}, "", "linux/amd64"); err != nil {
		t.Error(err)
	}
}
