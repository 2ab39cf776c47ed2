package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pulled gives a store that has pulled an image from a registry, as ref.
func pulled(t *testing.T, img *testImage) (s *Store, layers *diskLayers, r *reg, ref string) {
	t.Helper()
	r = newRegistry(t)
	ref = r.push(t, "base/one", "v1", img)
	s, layers = newStore(t, fast())
	if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
		t.Fatal(err)
	}
	return s, layers, r, ref
}

// TestPushBack: where the registry still has the blobs, the manifest stays the
// one that was pulled, and nothing is uploaded.
func TestPushBack(t *testing.T) {
	img := simple(t, 3)
	s, _, r, ref := pulled(t, img)
	for _, dst := range []string{"/base/one:v2", "/copy/two:v1"} {
		// This registry keeps one set of blobs for all repositories.
		r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
			switch {
			case q.Method == http.MethodHead && strings.Contains(q.URL.Path, "/copy/two/"):
				w.WriteHeader(http.StatusNotFound)
			case q.URL.Query().Get("mount") != "" && q.URL.Query().Get("from") == "base/one":
				w.WriteHeader(http.StatusCreated)
			default:
				return false
			}
			return true
		})
		var e events
		if err := s.Tag(ref, r.host+dst); err != nil {
			t.Fatal(err)
		}
		done, err := s.Push(t.Context(), r.host+dst, PushOptions{Progress: &e})
		if err != nil {
			t.Fatal(err)
		}
		if done.Digest != digestOf(img.manifest) || done.Size != int64(len(img.manifest)) {
			t.Errorf("%s: pushed %+v, pulled %s", dst, done, digestOf(img.manifest))
		}
		want := "present"
		if dst == "/copy/two:v1" {
			want = "mounted from base/one"
		}
		for _, d := range img.c.RootFS.DiffIDs {
			if line := shortID(d.String()) + " " + want; !slices.Contains(e.all, line) {
				t.Errorf("%s: no event %q in %q", dst, line, e.all)
			}
		}
		if n := r.count("PUT", "/blobs/"); dst == "/base/one:v2" && n != 0 {
			t.Errorf("%d blobs were uploaded", n)
		}
	}
	got, err := s.Get(ref)
	if err != nil || !slices.Contains(got.Digests, r.host+"/copy/two@"+digestOf(img.manifest)) {
		t.Errorf("digests after the push: %v, %v", got.Digests, err)
	}
}

// TestPushElsewhere: another registry gets a whole, valid image with the same
// config, in the same family of formats; again, and it gets nothing.
func TestPushElsewhere(t *testing.T) {
	for _, docker := range []bool{false, true} {
		t.Run(fmt.Sprintf("docker=%t", docker), func(t *testing.T) {
			plain := layerTar(t, "a", bytes.Repeat([]byte("a"), 100_000))
			twice := layerTar(t, "b", []byte("b"))
			img := makeImage(t, imageSpec{docker: docker, layers: []testLayer{
				{plain: plain, stored: zst(t, plain)}, {plain: twice, stored: gz(t, twice)}, {plain: twice, stored: gz(t, twice)}},
				edit: func(_ *ocispec.Image, m *ocispec.Manifest) { m.Annotations = map[string]string{"keep": "me"} }})
			s, _, _, ref := pulled(t, img)
			other := newRegistry(t)
			dst := other.host + "/x/y:z"
			var e events
			if err := s.Tag(ref, dst); err != nil {
				t.Fatal(err)
			}
			done, err := s.Push(t.Context(), dst, PushOptions{Platform: "linux/amd64", Progress: &e})
			if err != nil {
				t.Fatal(err)
			}
			if done.Digest == digestOf(img.manifest) {
				t.Error("the test wants layers that cannot be made again")
			}
			for _, d := range img.c.RootFS.DiffIDs {
				if line := shortID(d.String()) + " pushed"; !slices.Contains(e.all, line) {
					t.Errorf("no event %q in %q", line, e.all)
				}
			}
			back, layers := newStore(t, fast())
			got, err := back.Pull(t.Context(), other.host+"/x/y@"+done.Digest, PullOptions{Platform: "linux/amd64"})
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != digestOf(img.config) || len(layers.kept(t)) != 2 {
				t.Errorf("came back as %s with %v", got.ID, layers.kept(t))
			}
			raw, err := back.ManifestJSON(got.ID)
			var m ocispec.Manifest
			if err != nil || json.Unmarshal(raw, &m) != nil {
				t.Fatal(err)
			}
			if m.MediaType != img.m.MediaType || m.Config.MediaType != img.m.Config.MediaType || m.Annotations["keep"] != "me" {
				t.Errorf("the pushed manifest is %s", raw)
			}

			other.intercept(nil)
			again, err := s.Push(t.Context(), dst, PushOptions{})
			if err != nil || again != done {
				t.Errorf("pushed again: %+v, %v", again, err)
			}
			if n := other.count("POST", "") + other.count("PUT", "/blobs/"); n != 0 {
				t.Errorf("%d uploads at the second push", n)
			}
			if _, err := s.GC(t.Context()); err != nil {
				t.Fatal(err)
			}
			if again, err = s.Push(t.Context(), dst, PushOptions{}); err != nil || again != done {
				t.Errorf("pushed after a garbage collection: %+v, %v", again, err)
			}
		})
	}
}

// TestPushAfterPull: pulled again from where it was pushed to, in another form,
// the image still goes back to where it came from as it was.
func TestPushAfterPull(t *testing.T) {
	plain := layerTar(t, "a", []byte("a"))
	img := makeImage(t, imageSpec{layers: []testLayer{{plain: plain, stored: zst(t, plain)}}})
	s, _, _, ref := pulled(t, img)
	dst := newRegistry(t).host + "/x:y"
	if err := s.Tag(ref, dst); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(t.Context(), dst, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	for range maxOthers + 1 {
		got, err := s.Pull(t.Context(), dst, PullOptions{Platform: "linux/amd64"})
		if err != nil || got.Manifest == digestOf(img.manifest) || got.Pulled != got.Manifest {
			t.Fatalf("pulled %+v, %v", got, err)
		}
	}
	done, err := s.Push(t.Context(), ref, PushOptions{})
	if err != nil || done.Digest != digestOf(img.manifest) {
		t.Errorf("went back as %+v, %v; came as %s", done, err, digestOf(img.manifest))
	}
}

// TestPushLoaded: an image without a manifest, and without layers, gets an OCI
// manifest.
func TestPushLoaded(t *testing.T) {
	r := newRegistry(t)
	for name, n := range map[string]int{"some": 2, "none": 0} {
		img := simple(t, n)
		dst := r.host + "/loaded/" + name + ":x"
		s, _ := storeWith(t, map[string]*testImage{dst: img})
		if _, err := s.Push(t.Context(), dst, PushOptions{}); err != nil {
			t.Fatal(err)
		}
		back, _ := newStore(t, fast())
		got, err := back.Pull(t.Context(), dst, PullOptions{Platform: "linux/amd64"})
		if err != nil || got.ID != digestOf(img.config) {
			t.Errorf("%s: came back as %v, %v", name, got, err)
		}
	}
}

func TestPushRefused(t *testing.T) {
	r := newRegistry(t)
	img := simple(t, 2)
	dst := r.host + "/a:b"
	s, layers := storeWith(t, map[string]*testImage{dst: img})
	id := digestOf(img.config)
	for ref, want := range map[string]error{
		id: ErrNotFound, "oci:/dir:x": ErrReference, r.host + "/a@" + id: ErrReference,
		"A": ErrReference, r.host + "/other:b": ErrNotFound, hexOf(id)[:12]: ErrNotFound,
	} {
		_, err := s.Push(t.Context(), ref, PushOptions{})
		wantErr(t, err, want)
	}
	_, err := s.Push(t.Context(), dst, PushOptions{Platform: "linux/arm64"})
	wantErr(t, err, ErrPlatform, "linux/amd64")
	if n := r.count("", ""); n != 0 {
		t.Errorf("%d requests for pushes that were refused", n)
	}
	// A layer that has changed on disk is not spread.
	if err := os.WriteFile(layers.path(img.c.RootFS.DiffIDs[1].String()), layerTar(t, "evil", nil), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.Push(t.Context(), dst, PushOptions{})
	wantErr(t, err, ErrDamaged)
	if r.count("PUT", "/manifests/") != 0 {
		t.Error("a manifest was published")
	}
}

// TestPushFaults: what passes is tried again, what does not is told.
func TestPushFaults(t *testing.T) {
	tests := map[string]struct {
		fault func(n int, w http.ResponseWriter, q *http.Request) bool // n counts the uploads
		is    error
		says  string // "": the push succeeds
	}{
		"reset in the body": {fault: func(n int, w http.ResponseWriter, q *http.Request) bool {
			if q.Method != http.MethodPut || n > 2 {
				return false
			}
			io.CopyN(io.Discard, q.Body, 10)
			panic(http.ErrAbortHandler)
		}},
		"503 twice": {fault: func(n int, w http.ResponseWriter, q *http.Request) bool {
			if n > 2 || q.Method == http.MethodHead {
				return false
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}},
		"denied": {is: ErrUnauthorized, says: "micropod login 127.0.0.1", fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}},
		"no repository": {says: "has no repository a", fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}},
		"no location": {is: ErrInvalid, says: "where to upload", fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			w.WriteHeader(http.StatusAccepted)
			return q.Method == http.MethodPost
		}},
		"to the metadata service": {is: errAddress, fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Location", "http://169.254.169.254/latest")
			w.WriteHeader(http.StatusAccepted)
			return true
		}},
		"never ends": {says: "registry answered 500", fault: func(_ int, w http.ResponseWriter, q *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t)
			dst := r.host + "/a:b"
			s, _ := storeWith(t, map[string]*testImage{dst: simple(t, 1)})
			var mu sync.Mutex
			n := 0
			r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.Contains(q.URL.Path, "/uploads/") {
					return false
				}
				mu.Lock()
				if q.Method == http.MethodPut || q.Method == http.MethodPost {
					n++
				}
				at := n
				mu.Unlock()
				return tc.fault(at, w, q)
			})
			_, err := s.Push(t.Context(), dst, PushOptions{})
			if tc.is == nil && tc.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantErr(t, err, tc.is, tc.says)
			if r.count("PUT", "/manifests/") != 0 {
				t.Error("a manifest was published")
			}
			if entries, err := os.ReadDir(filepath.Join(s.dir, dirTmp)); err != nil || len(entries) > 0 {
				t.Errorf("left behind: %v %v", entries, err)
			}
		})
	}
}

// TestPushWrongDigest: a registry that stores something else is told on.
func TestPushWrongDigest(t *testing.T) {
	r := newRegistry(t)
	dst := r.host + "/a:b"
	s, _ := storeWith(t, map[string]*testImage{dst: simple(t, 1)})
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/manifests/") {
			w.Header().Set("Docker-Content-Digest", digestOf([]byte("other")))
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	_, err := s.Push(t.Context(), dst, PushOptions{})
	wantErr(t, err, ErrInvalid, "the registry stored")
	if img, err := s.Get(dst); err != nil || len(img.Digests) != 0 {
		t.Errorf("recorded all the same: %v, %v", img.Digests, err)
	}
}

// TestPushNewToken: a token that runs out while a body is under way is renewed,
// and the body is sent again in full.
func TestPushNewToken(t *testing.T) {
	r := newRegistry(t)
	dst := r.host + "/a:b"
	s, _ := storeWith(t, map[string]*testImage{dst: simple(t, 2)})
	s.o.Parallel = 1
	var mu sync.Mutex
	issued, uses := 0, 0
	var scopes []string
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if q.URL.Path == "/token" {
			issued, uses = issued+1, 0
			scopes = append(scopes, q.URL.Query()["scope"]...)
			fmt.Fprintf(w, `{"token":"t%d"}`, issued)
			return true
		}
		uses++
		if q.Header.Get("Authorization") == fmt.Sprintf("Bearer t%d", issued) && uses < 3 {
			return false
		}
		io.Copy(io.Discard, q.Body) // it has been sent for nothing
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"`, r.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if _, err := s.Push(t.Context(), dst, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if issued < 3 || !slices.Contains(scopes, "repository:a:push,pull") {
		t.Errorf("%d tokens, scopes %q", issued, scopes)
	}
}

// TestPushLocation: an upload may go to another host, the credentials stay.
func TestPushLocation(t *testing.T) {
	r := newRegistry(t)
	dst := r.host + "/a:b"
	s, _ := storeWith(t, map[string]*testImage{dst: simple(t, 2)})
	s.o.Keychain = basic{"me", "secret"}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret"))
	cdn := newRecorder(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		if digestOf(body) != q.URL.Query().Get("digest") || q.URL.Query().Get("state") != "x y" {
			t.Errorf("%s: %d bytes", q.URL, len(body))
		}
		r.blob(t, "a", body)
		w.WriteHeader(http.StatusCreated)
	})
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		own := q.URL.Query().Get("digest") != "" // the test's own upload
		if q.Header.Get("Authorization") != want && !own {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if q.Method == http.MethodPost && !own {
			w.Header().Set("Location", cdn.URL+"/up?state="+url.QueryEscape("x y"))
			w.WriteHeader(http.StatusAccepted)
			return true
		}
		return false
	})
	if _, err := s.Push(t.Context(), dst, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(cdn.headers) != 3 {
		t.Errorf("%d uploads went to the other host, want 3", len(cdn.headers))
	}
	if got := cdn.secrets(); len(got) > 0 {
		t.Errorf("the other host got %q", got)
	}
}

// TestPushStops: a push that is cancelled, or that a registry lets hang, ends
// soon and leaves nothing.
func TestPushStops(t *testing.T) {
	for _, cancelled := range []bool{true, false} {
		r := newRegistry(t)
		dst := r.host + "/a:b"
		s, _ := storeWith(t, map[string]*testImage{dst: simple(t, 2)})
		s.o.Retries, s.o.IdleTimeout = -1, 20*time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if cancelled {
			s.o.IdleTimeout = time.Hour
		}
		r.intercept(func(_ http.ResponseWriter, q *http.Request) bool {
			if q.Method != http.MethodPut {
				return false
			}
			io.Copy(io.Discard, q.Body)
			if cancelled {
				cancel()
			}
			<-q.Context().Done()
			return true
		})
		start := time.Now()
		_, err := s.Push(ctx, dst, PushOptions{})
		want := errIdle
		if cancelled {
			want = context.Canceled
		}
		wantErr(t, err, want)
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("cancelled=%t: the push ended after %s", cancelled, took)
		}
		for _, dir := range []string{dirTmp, dirLeases} {
			if entries, err := os.ReadDir(filepath.Join(s.dir, dir)); err != nil || len(entries) > 0 {
				t.Errorf("left in %s: %v %v", dir, entries, err)
			}
		}
	}
}
