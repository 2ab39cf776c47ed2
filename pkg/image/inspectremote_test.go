package image

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestRemoteManifests(t *testing.T) {
	r := newRegistry(t)
	img, docker := simple(t, 1), makeImage(t, imageSpec{docker: true})
	one := r.push(t, "a", "one", img)
	r.push(t, "a", "docker", docker)
	amd64 := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	list := r.pushIndex(t, "a", "list", img.descriptor(amd64), docker.descriptor(nil))
	s, layers := newStore(t, fast())
	got, err := s.RemoteManifests(t.Context(), one, RemoteOptions{Details: true})
	if err != nil || len(got) != 1 || !bytes.Equal(got[0].Raw, img.manifest) || got[0].IsIndex || got[0].Ref != one || got[0].Descriptor.Platform.OS != "linux" {
		t.Errorf("one: %+v, %v", got, err)
	}
	if got, err = s.RemoteManifests(t.Context(), list, RemoteOptions{}); err != nil || len(got) != 1 || !got[0].IsIndex {
		t.Errorf("a list: %+v, %v", got, err)
	}
	got, err = s.RemoteManifests(t.Context(), list, RemoteOptions{Details: true})
	if err != nil || len(got) != 3 || !bytes.Equal(got[2].Raw, docker.manifest) || got[2].Ref != list+"@"+digestOf(docker.manifest) {
		t.Errorf("a list in detail: %+v, %v", got, err)
	}
	checkEmpty(t, s, layers)

	// What is no manifest, lies or floods is not shown.
	_, err = s.RemoteManifests(t.Context(), "oci:/x", RemoteOptions{})
	wantErr(t, err, ErrReference)
	_, err = s.RemoteManifests(t.Context(), r.host+"/a:none", RemoteOptions{})
	wantErr(t, err, ErrNotFound)
	many := make([]ocispec.Descriptor, maxChildren+1)
	for i := range many {
		many[i] = img.descriptor(amd64)
	}
	_, err = s.RemoteManifests(t.Context(), r.pushIndex(t, "a", "many", many...), RemoteOptions{Details: true})
	wantErr(t, err, ErrInvalid, "at most 128")
	r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "sha256:") {
			w.Write([]byte(`{"schemaVersion":2}`))
			return true
		}
		return false
	})
	_, err = s.RemoteManifests(t.Context(), list, RemoteOptions{Details: true})
	wantErr(t, err, ErrInvalid)
	r.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Write([]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`))
		return true
	})
	_, err = s.RemoteManifests(t.Context(), one, RemoteOptions{})
	wantErr(t, err, ErrInvalid, "not clearly a manifest or an index")
}
