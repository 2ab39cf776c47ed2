package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
