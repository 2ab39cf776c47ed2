package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestLocalSources pulls from every kind of local source and finds the image
// again by the same string.
func TestLocalSources(t *testing.T) {
	one, two := simple(t, 3), simple(t, 2)
	both := layoutEntries(t, map[string]*testImage{"v1": one, "v2": two}, nil)
	dir := writeDir(t, both)
	single := writeDir(t, layoutEntries(t, map[string]*testImage{"": one}, nil))
	ociTar := writeFile(t, makeTar(t, both...))
	dockerTar := writeFile(t, legacyArchive(t, one, `["team/app:v1","docker.io/library/nginx:latest"]`))
	dockerGz := writeFile(t, gz(t, legacyArchive(t, one, `null`)))
	for ref, want := range map[string]*testImage{
		"oci:" + dir + ":v1":                      one,
		"oci:" + dir + ":v2":                      two,
		"oci:" + single:                           one,
		"oci-archive:" + ociTar + ":v2":           two,
		"docker-archive:" + dockerTar:             one,
		"docker-archive:" + dockerTar + ":nginx":  one,
		"docker-archive:" + dockerGz:              one,
		"docker-archive:" + relative(t, dockerGz): one,
	} {
		s, layers := newStore(t, fast())
		img, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		again, err := s.Get(ref)
		if err != nil || again.ID != digestOf(want.config) || img.ID != again.ID {
			t.Errorf("%s: found %v, %v", ref, again, err)
		}
		norm, _ := Normalize(ref)
		if !slices.Equal(img.Names, []string{norm}) {
			t.Errorf("%s is named %q", ref, img.Names)
		}
		if len(layers.kept(t)) != len(want.m.Layers) {
			t.Errorf("%s: layers %v", ref, layers.kept(t))
		}
	}
	s, kept := newStore(t, fast())
	for ref, tc := range map[string]struct {
		is   error
		says string
	}{
		"oci:" + dir:                             {ErrReference, "holds several images, choose one by :NAME at the end: v1, v2"},
		"oci:" + dir + ":v3":                     {ErrNotFound, "it holds: v1, v2"},
		"oci:" + dir + "/nope":                   {os.ErrNotExist, "open OCI layout"},
		"oci:" + filepath.Dir(dockerTar):         {os.ErrNotExist, "not an OCI layout"},
		"oci-archive:" + dockerTar:               {ErrInvalid, "not an OCI layout"},
		"docker-archive:" + ociTar:               {ErrInvalid, "not a docker archive"},
		"docker-archive:" + dockerTar + ":other": {ErrNotFound, "team/app:v1, nginx:latest"},
		"docker-archive:/dev/null":               {ErrInvalid, "not an image archive"},
		"oci-archive:/nope.tar":                  {os.ErrNotExist, "/nope.tar"},
	} {
		_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
		t.Run(ref, func(t *testing.T) { wantErr(t, err, tc.is, tc.says) })
	}
	checkEmpty(t, s, kept)
}

func relative(t testing.TB, path string) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(wd, path)
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

// TestLegacyLinks: docker before 25 wrote a layer that comes twice as a link.
func TestLegacyLinks(t *testing.T) {
	plain := layerTar(t, "a", []byte("x"))
	l := testLayer{plain, plain, ocispec.MediaTypeImageLayer}
	img := makeImage(t, imageSpec{layers: []testLayer{l, l}})
	raw := makeTar(t, entry{name: "a/layer.tar", body: plain}, entry{name: "b/layer.tar", link: "../a/layer.tar", kind: tar.TypeSymlink},
		entry{name: "c.json", body: img.config},
		entry{name: fileManifest, body: []byte(`[{"Config":"c.json","RepoTags":["a:b"],"Layers":["a/layer.tar","b/layer.tar"]}]`)})
	s, _ := newStore(t, fast())
	images, err := s.Load(t.Context(), bytes.NewReader(raw), LoadOptions{})
	if err != nil || len(images) != 1 || images[0].ID != digestOf(img.config) {
		t.Errorf("%v, %v", images, err)
	}
}

func TestLoadStreams(t *testing.T) {
	img := simple(t, 2)
	raw := legacyArchive(t, img, `["app:v1"]`)
	for name, b := range map[string][]byte{"plain": raw, "gzip": gz(t, raw), "zstd": zst(t, raw)} {
		s, _ := newStore(t, fast())
		// A pipe: no length, no seeking.
		pr, pw := io.Pipe()
		go func() {
			_, err := pw.Write(b)
			pw.CloseWithError(err)
		}()
		images, err := s.Load(t.Context(), pr, LoadOptions{})
		if err != nil || len(images) != 1 || !slices.Equal(images[0].Names, []string{"app:v1"}) {
			t.Errorf("%s: %v, %v", name, images, err)
		}
	}
	o := fast()
	o.MaxSpool = int64(len(raw) - 1)
	s, layers := newStore(t, o)
	_, err := s.Load(t.Context(), bytes.NewReader(gz(t, raw)), LoadOptions{})
	wantErr(t, err, ErrInvalid, "archive is larger than")
	checkEmpty(t, s, layers)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Load(ctx, bytes.NewReader(raw), LoadOptions{})
	wantErr(t, err, context.Canceled)
	checkEmpty(t, s, layers)
}

// TestLoadOCI: platforms, nested indexes, whole names and mere tags.
func TestLoadOCI(t *testing.T) {
	arm := makeImage(t, imageSpec{platform: *plat("linux/arm64"), layers: simpleLayers(t, 1)})
	amd := simple(t, 1)
	load := func(images map[string]*testImage, edit func(*ocispec.Index), platform string) ([]*Image, error) {
		s, _ := newStore(t, fast())
		return s.Load(t.Context(), bytes.NewReader(makeTar(t, layoutEntries(t, images, edit)...)), LoadOptions{Platform: platform})
	}
	got, err := load(map[string]*testImage{"": arm}, nil, "")
	if err != nil || len(got) != 1 || got[0].Platform != "linux/arm64" || len(got[0].Names) != 0 {
		t.Errorf("a lone image of another platform: %v, %v", got, err)
	}
	_, err = load(map[string]*testImage{"": arm}, nil, "linux/amd64")
	wantErr(t, err, ErrPlatform)
	got, err = load(map[string]*testImage{"v1": arm, "example.com/a/b:c": amd}, nil, "")
	if err != nil || len(got) != 2 || !slices.Equal(got[0].Names, []string{"example.com/a/b:c"}) || len(got[1].Names) != 0 {
		t.Errorf("names: %+v, %v", got, err)
	}
	// One name, two platforms.
	got, err = load(map[string]*testImage{"x:1": arm, "x:2": amd}, func(x *ocispec.Index) {
		for i, p := range []string{"linux/arm64", "linux/amd64"} {
			x.Manifests[i].Annotations = map[string]string{annotationName: "docker.io/library/x:1", annotationRef: "1"}
			x.Manifests[i].Platform = plat(p)
		}
	}, "linux/amd64")
	if err != nil || len(got) != 1 || got[0].ID != digestOf(amd.config) || got[0].Names[0] != "x:1" {
		t.Errorf("two platforms: %+v, %v", got, err)
	}
}

// TestLayoutDirTraps: a layout directory of somebody else cannot read our files
// and cannot make us wait.
func TestLayoutDirTraps(t *testing.T) {
	img := simple(t, 1)
	config := blobName(digestOf(img.config))
	for name, trap := range map[string]func(path string) error{
		"link out": func(p string) error { return os.Symlink("/etc/hostname", p) },
		"link up":  func(p string) error { return os.Symlink("../../../../../../../../etc/hostname", p) },
		"fifo":     func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"dir":      func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeDir(t, layoutEntries(t, map[string]*testImage{"": img}, nil))
			if err := os.Remove(filepath.Join(dir, config)); err != nil {
				t.Fatal(err)
			}
			if err := trap(filepath.Join(dir, config)); err != nil {
				t.Fatal(err)
			}
			s, layers := newStore(t, fast())
			_, err := s.Pull(t.Context(), "oci:"+dir, PullOptions{Platform: "linux/amd64"})
			wantErr(t, err, nil, "fetch config")
			checkEmpty(t, s, layers)
		})
	}
}

// TestDaemon talks to a small Docker daemon, and to none.
func TestDaemon(t *testing.T) {
	img := simple(t, 2)
	raw := legacyArchive(t, img, `["app:v1"]`)
	sock := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/images/get" || q.URL.Query().Get("names") != "app:v1" {
			http.Error(w, `{"message":"reference does not exist"}`, http.StatusNotFound)
			return
		}
		w.Write(raw)
	})}
	go srv.Serve(l)
	defer srv.Close()
	o := fast()
	o.DockerHost = "unix://" + sock
	s, layers := newStore(t, o)
	_, err = s.Pull(t.Context(), "docker-daemon:nope", PullOptions{Platform: "linux/amd64"})
	wantErr(t, err, ErrNotFound, "has no nope:latest")
	checkEmpty(t, s, layers)
	got, err := s.Pull(t.Context(), "docker-daemon:app:v1", PullOptions{Platform: "linux/amd64"})
	if err != nil || got.ID != digestOf(img.config) || !slices.Equal(got.Names, []string{"docker-daemon:app:v1"}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if again, err := s.Get("docker-daemon:docker.io/library/app:v1"); err != nil || again.ID != got.ID {
		t.Errorf("not found again: %v", err)
	}
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	s, _ = newStore(t, fast())
	_, err = s.Pull(t.Context(), "docker-daemon:app", PullOptions{})
	wantErr(t, err, ErrNoDaemon, "docker daemon not running", "/nowhere/docker.sock", "systemctl start docker")
	t.Setenv("DOCKER_HOST", "ssh://host")
	_, err = s.Pull(t.Context(), "docker-daemon:app", PullOptions{})
	wantErr(t, err, nil, "ssh://host", "not supported")
}
