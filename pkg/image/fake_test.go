package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/klauspost/compress/zstd"

	"github.com/micropod/micropod/pkg/state"
)

// diskLayers is a small real LayerStore: plain tar files in a directory.
type diskLayers struct {
	dir string

	mu    sync.Mutex
	reads map[string]int // how often a layer's stream was read
}

func newDiskLayers(t testing.TB) *diskLayers {
	t.Helper()
	return &diskLayers{dir: t.TempDir(), reads: map[string]int{}}
}

func (d *diskLayers) path(id string) string { return filepath.Join(d.dir, hexOf(id)+".tar") }

func (d *diskLayers) HasLayer(id string) bool {
	_, err := os.Stat(d.path(id))
	return err == nil
}

func (d *diskLayers) AddLayer(ctx context.Context, id string, r io.Reader) error {
	l, err := state.Lock(d.path(id) + ".lock")
	if err != nil {
		return err
	}
	defer l.Unlock()
	defer os.Remove(d.path(id) + ".lock")
	if d.HasLayer(id) {
		return nil
	}
	d.mu.Lock()
	d.reads[id]++
	d.mu.Unlock()
	f, err := os.CreateTemp(d.dir, "add-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), r); err != nil {
		return err
	}
	if got := digestPrefix + hex.EncodeToString(h.Sum(nil)); got != id {
		return fmt.Errorf("diffID mismatch: got %s, want %s", got, id)
	}
	return os.Rename(f.Name(), d.path(id))
}

func (d *diskLayers) LayerTar(id string) (io.ReadCloser, error) { return os.Open(d.path(id)) }

func (d *diskLayers) LayerSize(id string) (int64, error) {
	st, err := os.Stat(d.path(id))
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (d *diskLayers) Prune(_ context.Context, keep func(string) bool) (int64, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return 0, err
	}
	var freed int64
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".tar")
		if !ok || keep(digestPrefix+id) {
			continue
		}
		if st, err := e.Info(); err == nil {
			freed += st.Size()
		}
		if err := os.Remove(filepath.Join(d.dir, e.Name())); err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// kept names everything in the layer directory, temporary files included.
func (d *diskLayers) kept(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// fast are options under which faults do not slow tests down.
func fast() Options {
	return Options{Keychain: anonymous{}, Backoff: time.Millisecond, IdleTimeout: 20 * time.Second}
}

type anonymous struct{}

func (anonymous) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

func newStore(t testing.TB, o Options) (*Store, *diskLayers) {
	t.Helper()
	layers := newDiskLayers(t)
	s, err := Open(t.TempDir(), layers, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, layers
}

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

// reg is a real small registry, with a handler in front of it.
type reg struct {
	*httptest.Server
	host string

	mu     sync.Mutex
	before func(w http.ResponseWriter, r *http.Request) bool // true: answered
	log    []string
}

func newRegistry(t testing.TB) *reg {
	t.Helper()
	r := &reg{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		before := r.before
		r.log = append(r.log, q.Method+" "+q.URL.Path)
		r.mu.Unlock()
		if before != nil && before(w, q) {
			return
		}
		inner.ServeHTTP(w, q)
	}))
	t.Cleanup(r.Server.Close)
	r.host = strings.TrimPrefix(r.URL, "http://")
	return r
}

// intercept puts f in front of the registry's own answers.
func (r *reg) intercept(f func(w http.ResponseWriter, q *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before, r.log = f, nil
}

// count says how many requests matched.
func (r *reg) count(method, part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, l := range r.log {
		if strings.HasPrefix(l, method+" ") && strings.Contains(l, part) {
			n++
		}
	}
	return n
}

func (r *reg) put(t testing.TB, path, contentType string, body []byte) {
	t.Helper()
	method := http.MethodPut
	if strings.Contains(path, "/uploads/") {
		method = http.MethodPost
	}
	q, err := http.NewRequest(method, r.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		msg, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s: %s", method, path, resp.Status, msg)
	}
}

func (r *reg) blob(t testing.TB, repo string, b []byte) {
	t.Helper()
	r.put(t, "/v2/"+repo+"/blobs/uploads/?digest="+digestOf(b), "application/octet-stream", b)
}

// push stores an image under a tag and returns its reference.
func (r *reg) push(t testing.TB, repo, tag string, img *testImage) string {
	t.Helper()
	for _, d := range slices.Sorted(maps.Keys(img.blobs)) {
		r.blob(t, repo, img.blobs[d])
	}
	r.put(t, "/v2/"+repo+"/manifests/"+tag, img.m.MediaType, img.manifest)
	return r.host + "/" + repo + ":" + tag
}

// pushIndex stores an index of images under a tag.
func (r *reg) pushIndex(t testing.TB, repo, tag string, entries ...ocispec.Descriptor) string {
	t.Helper()
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: entries}
	x.SchemaVersion = 2
	r.put(t, "/v2/"+repo+"/manifests/"+tag, x.MediaType, mustJSON(t, x))
	return r.host + "/" + repo + ":" + tag
}

// events collects progress.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) Layer(id, event string, current, total int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if current < 0 || total > 0 && current > total {
		event = fmt.Sprintf("impossible %d/%d", current, total)
	}
	e.all = append(e.all, id+" "+event)
}

func wantErr(t testing.TB, err, is error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v with %q", is, parts)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("error %q is not %q", err, is)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

// checkEmpty fails when anything of a failed pull is left.
func checkEmpty(t testing.TB, s *Store, layers *diskLayers) {
	t.Helper()
	images, errs := s.List()
	if len(images) != 0 || len(errs) != 0 {
		t.Errorf("store lists %v %v after a failure", images, errs)
	}
	if k := layers.kept(t); len(k) != 0 {
		t.Errorf("layers left after a failure: %v", k)
	}
	for _, d := range []string{dirLeases, dirTmp, dirContent} {
		entries, err := os.ReadDir(filepath.Join(s.dir, d))
		if err != nil || len(entries) != 0 {
			t.Errorf("left in %s: %v %v", d, entries, err)
		}
	}
}

// sinkLayers reads a layer and keeps nothing.
type sinkLayers struct{ *diskLayers }

func (s *sinkLayers) AddLayer(_ context.Context, id string, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
