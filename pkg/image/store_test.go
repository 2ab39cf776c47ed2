package image

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

func nobody(string) []string { return nil }

func mustGet(t testing.TB, s *Store, ref string) *Image {
	t.Helper()
	img, err := s.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestTag(t *testing.T) {
	one, two := simple(t, 1), simple(t, 2)
	s, _ := storeWith(t, map[string]*testImage{"one:1": one, "two:1": two})
	if err := s.Tag("one:1", "docker.io/library/web"); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, s, "web:latest"); got.ID != digestOf(one.config) || !slices.Equal(got.Names, []string{"one:1", "web:latest"}) {
		t.Errorf("web is %+v", got)
	}
	if err := s.Tag(digestOf(two.config)[7:19], "web"); err != nil { // the name moves
		t.Fatal(err)
	}
	if got := mustGet(t, s, "web"); got.ID != digestOf(two.config) {
		t.Errorf("web is still %s", got.ID)
	}
	if got := mustGet(t, s, "one:1"); !slices.Equal(got.Names, []string{"one:1"}) {
		t.Errorf("one has %q", got.Names)
	}
	wantErr(t, s.Tag("nope", "x"), ErrNotFound)
	for _, bad := range []string{"X", "a@" + someDigest, "oci:/d:t", "docker-daemon:x", ""} {
		wantErr(t, s.Tag("one:1", bad), ErrReference)
	}
}

func TestLookup(t *testing.T) {
	one, two := simple(t, 1), simple(t, 2)
	s, _ := storeWith(t, map[string]*testImage{"one:1": one, "two:1": two})
	_, err := s.Get("")
	wantErr(t, err, ErrReference)
	_, err = s.Get("sha256:" + strings.Repeat("0", 64))
	wantErr(t, err, ErrNotFound)
	_, err = s.Get("no such name")
	wantErr(t, err, ErrReference)
	_, err = s.Get("one") // one:latest
	wantErr(t, err, ErrNotFound)
	// A name wins over an id prefix.
	prefix := digestOf(one.config)[7:13]
	if err := s.Tag("two:1", prefix); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, s, prefix); got.ID != digestOf(two.config) {
		t.Error("an id prefix hides a name")
	}
	x := &index{records: []*record{{ID: digestPrefix + strings.Repeat("a", 64)}, {ID: digestPrefix + "ab" + strings.Repeat("a", 62)}}}
	_, err = x.find("a")
	wantErr(t, err, ErrAmbiguous)
	if r, err := x.find("ab"); err != nil || r != x.records[1] {
		t.Errorf("unique prefix: %v", err)
	}
	if r, err := x.find(strings.Repeat("a", 64)); err != nil || r != x.records[0] {
		t.Errorf("complete id: %v", err)
	}
}

func TestRemove(t *testing.T) {
	img := simple(t, 2)
	used := func(string) []string { return []string{"container web"} }
	for name, tc := range map[string]struct {
		names, ref string
		inUse      func(string) []string
		force      bool
		is         error
		says       string
		untagged   []string
		deleted    bool
	}{
		"last name":             {"a:1", "a:1", nobody, false, nil, "", []string{"a:1"}, true},
		"one of two":            {"a:1 b:1", "a:1", nobody, false, nil, "", []string{"a:1"}, false},
		"one of two, used":      {"a:1 b:1", "a:1", used, false, nil, "", []string{"a:1"}, false},
		"by id":                 {"a:1", "ID", nobody, false, nil, "", []string{"a:1"}, true},
		"by id, two names":      {"a:1 b:1", "ID", nobody, false, ErrConflict, "several names (a:1, b:1)", nil, false},
		"by id, two, force":     {"a:1 b:1", "ID", nobody, true, nil, "", []string{"a:1", "b:1"}, true},
		"used":                  {"a:1", "a:1", used, false, ErrConflict, "in use by container web", nil, false},
		"used, force":           {"a:1", "a:1", used, true, nil, "", []string{"a:1"}, false},
		"used, by id, force":    {"a:1 b:1", "ID", used, true, nil, "", []string{"a:1", "b:1"}, false},
		"used, nameless, force": {"", "ID", used, true, ErrConflict, "in use by", nil, false},
		"nameless":              {"", "ID", nobody, false, nil, "", nil, true},
		"unknown":               {"a:1", "c:1", nobody, false, ErrNotFound, "remove image c:1", nil, false},
		"nil callback":          {"a:1", "a:1", nil, false, nil, "", []string{"a:1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, layers := storeWith(t, map[string]*testImage{tc.names: img})
			ref := strings.Replace(tc.ref, "ID", digestOf(img.config)[7:19], 1)
			got, err := s.Remove(t.Context(), ref, tc.inUse, tc.force)
			if tc.is != nil {
				wantErr(t, err, tc.is, tc.says)
			} else if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Untagged, tc.untagged) || (len(got.Deleted) == 1) != tc.deleted {
				t.Errorf("removed %+v", got)
			}
			if tc.deleted {
				checkEmpty(t, s, layers)
				return
			}
			if again := mustGet(t, s, digestOf(img.config)); len(again.Names) != len(strings.Fields(tc.names))-len(tc.untagged) {
				t.Errorf("left with %q", again.Names)
			}
		})
	}
}

// TestRemoveKeepsSharedLayers: only what nobody else needs goes.
func TestRemoveKeepsSharedLayers(t *testing.T) {
	s, layers := storeWith(t, map[string]*testImage{"two:1": simple(t, 2), "three:1": simple(t, 3)})
	if len(layers.kept(t)) != 3 {
		t.Fatalf("%v", layers.kept(t))
	}
	if _, err := s.Remove(t.Context(), "three:1", nobody, false); err != nil {
		t.Fatal(err)
	}
	if len(layers.kept(t)) != 2 {
		t.Errorf("%v", layers.kept(t))
	}
	mustGet(t, s, "two:1")
}

func TestHold(t *testing.T) {
	img := simple(t, 1)
	s, layers := storeWith(t, map[string]*testImage{"a:1": img})
	_, release, err := s.Hold("a:1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Remove(t.Context(), "a:1", nobody, true)
	wantErr(t, err, ErrConflict, "just now")
	release()
	if _, err := s.Remove(t.Context(), "a:1", nobody, false); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s, layers)
	_, _, err = s.Hold("a:1")
	wantErr(t, err, ErrNotFound)
}

// TestGC: what crashes left goes, what a pull is about to use stays.
func TestGC(t *testing.T) {
	s, layers := storeWith(t, map[string]*testImage{"a:1": simple(t, 1)})
	stray := layerTar(t, "stray", []byte("x"))
	leased := layerTar(t, "leased", []byte("x"))
	for _, b := range [][]byte{stray, leased} {
		if err := layers.AddLayer(t.Context(), digestOf(b), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.putContent(digestOf(stray), stray); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(s.dir, dirLeases, "dead")
	tmp := filepath.Join(s.dir, dirTmp, "spool-1")
	for _, p := range []string{dead, tmp} {
		if err := os.WriteFile(p, []byte(`{"layers":["`+digestOf(stray)+`"]}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := s.acquire(someDigest, []string{digestOf(leased)})
	if err != nil {
		t.Fatal(err)
	}
	freed, err := s.GC(t.Context())
	if err != nil || freed < int64(2*len(stray)) {
		t.Errorf("freed %d, %v", freed, err)
	}
	if layers.HasLayer(digestOf(stray)) || !layers.HasLayer(digestOf(leased)) {
		t.Errorf("kept %v", layers.kept(t))
	}
	for _, p := range []string{dead, tmp, s.contentPath(digestOf(stray))} {
		if _, err := os.Stat(p); !os.IsNotExist(err) {
			t.Errorf("%s is still there", p)
		}
	}
	mustGet(t, s, "a:1")
	l.release()
	if _, err := s.GC(t.Context()); err != nil || layers.HasLayer(digestOf(leased)) {
		t.Errorf("kept after the lease: %v, %v", layers.kept(t), err)
	}
}

// TestDamagedIndex: each damage costs what was damaged and nothing else.
func TestDamagedIndex(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(lines []string) []string
		left int // sound images of three
		errs int
	}{
		"one line zeroed":   {func(l []string) []string { l[2] = strings.Repeat("\x00", len(l[2])); return l }, 2, 1},
		"one line cut":      {func(l []string) []string { l[2] = l[2][:20]; return l }, 2, 1},
		"file cut":          {func(l []string) []string { l[3] = l[3][:len(l[3])-5]; return l[:4] }, 2, 1},
		"header lost":       {func(l []string) []string { l[0] = "xx"; return l }, 3, 1},
		"header missing":    {func(l []string) []string { return l[1:] }, 3, 0},
		"wrong type":        {func(l []string) []string { l[1] = `{"id":7}`; return l }, 2, 1},
		"array":             {func(l []string) []string { l[1] = `[]`; return l }, 2, 1},
		"path as id":        {func(l []string) []string { l[1] = `{"id":"sha256:../../../etc/passwd"}`; return l }, 2, 1},
		"path as manifest":  {func(l []string) []string { l[1] = `{"id":"` + someDigest + `","manifest":"../x"}`; return l }, 2, 1},
		"bad name":          {func(l []string) []string { l[1] = `{"id":"` + someDigest + `","names":["A B"]}`; return l }, 2, 1},
		"name not normal":   {func(l []string) []string { l[1] = strings.Replace(l[1], `["`, `["docker.io/library/`, 1); return l }, 2, 1},
		"twice":             {func(l []string) []string { return append(l[:4], l[1], "") }, 3, 1},
		"config is gone":    {func(l []string) []string { l[1] = `{"id":"` + someDigest + `","names":["a:1"]}`; return l }, 2, 1},
		"everything zeroed": {func([]string) []string { return []string{strings.Repeat("\x00", 500)} }, 0, 1},
		"empty":             {func([]string) []string { return nil }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, layers := storeWith(t, map[string]*testImage{"a:1": simple(t, 1), "b:1": simple(t, 2), "c:1": simple(t, 3)})
			path := filepath.Join(s.dir, fileIndex)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := []byte(strings.Join(tc.edit(strings.Split(string(raw), "\n")), "\n"))
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			images, errs := s.List()
			if len(images) != tc.left || len(errs) != tc.errs {
				t.Errorf("%d sound, %v", len(images), errs)
			}
			for _, err := range errs {
				wantErr(t, err, ErrDamaged)
			}
			if tc.errs > 0 { // nobody knows what the damaged image needs
				if _, err := s.GC(t.Context()); err == nil || len(layers.kept(t)) != 3 {
					t.Errorf("GC went on: %v, %v", err, layers.kept(t))
				}
			}
			// A change keeps the damaged lines, Repair drops them.
			for _, img := range images {
				if err := s.Tag(img.ID, "new:"+img.ID[7:19]); err != nil {
					t.Error(err)
				}
			}
			if again, errs := s.List(); len(again) != tc.left || len(errs) > tc.errs {
				t.Errorf("after a change: %d sound, %v", len(again), errs)
			}
			if _, err := s.Repair(); err != nil {
				t.Error(err)
			}
			if again, _ := s.List(); len(again) != tc.left {
				t.Errorf("after repair: %d sound", len(again))
			}
		})
	}
}

func TestNewerIndex(t *testing.T) {
	s, _ := storeWith(t, map[string]*testImage{"a:1": simple(t, 1)})
	path := filepath.Join(s.dir, fileIndex)
	newer := []byte("{\"version\":2}\n{\"other\":true}\n")
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs := s.List()
	if len(errs) != 1 {
		t.Fatalf("%v", errs)
	}
	wantErr(t, errs[0], state.ErrNewer)
	wantErr(t, s.Tag("a:1", "b:1"), state.ErrNewer)
	_, err := s.GC(t.Context())
	wantErr(t, err, state.ErrNewer)
	if raw, _ := os.ReadFile(path); !bytes.Equal(raw, newer) {
		t.Error("the newer index was changed")
	}
}

// TestDamagedParts: a changed or lost config, manifest or layer is noticed, the
// image can be removed, and pulling it again heals it.
func TestDamagedParts(t *testing.T) {
	r := newRegistry(t)
	img := simple(t, 2)
	ref := r.push(t, "a", "b", img)
	config := func(s *Store, _ *diskLayers) string { return s.contentPath(digestOf(img.config)) }
	layer := func(_ *Store, l *diskLayers) string { return l.path(diffIDs(img)[1]) }
	for name, tc := range map[string]struct {
		path func(*Store, *diskLayers) string
		hurt func(string) error
	}{
		"config changed": {config, func(p string) error { return os.WriteFile(p, []byte(`{"rootfs":{}}`), 0o600) }},
		"config cut":     {config, func(p string) error { return os.Truncate(p, 10) }},
		"config gone":    {config, os.Remove},
		"layer gone":     {layer, os.Remove},
	} {
		t.Run(name, func(t *testing.T) {
			s, layers := newStore(t, fast())
			if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
				t.Fatal(err)
			}
			if err := tc.hurt(tc.path(s, layers)); err != nil {
				t.Fatal(err)
			}
			_, err := s.Get(ref)
			wantErr(t, err, ErrDamaged, ref)
			if images, errs := s.List(); len(images) != 0 || len(errs) != 1 {
				t.Errorf("%v, %v", images, errs)
			}
			if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
				t.Fatal(err)
			}
			mustGet(t, s, ref)
			if err := tc.hurt(tc.path(s, layers)); err != nil {
				t.Fatal(err)
			}
			got, err := s.Remove(t.Context(), ref, nobody, false)
			if err != nil || len(got.Deleted) != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			checkEmpty(t, s, layers)
		})
	}
}

// TestPrivate: with any umask, others see nothing.
func TestPrivate(t *testing.T) {
	s, _ := storeWith(t, map[string]*testImage{"a:1": simple(t, 1)})
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil && path != s.dir && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestManyProcesses has other processes pull, tag, remove and collect in one
// store at once. The test binary is run again as each of them.
func TestManyProcesses(t *testing.T) {
	if dir := os.Getenv("IMAGE_TEST_STORE"); dir != "" {
		hammer(t, dir, os.Getenv("IMAGE_TEST_LAYERS"), os.Getenv("IMAGE_TEST_REF"))
		return
	}
	r := newRegistry(t)
	img := simple(t, 4)
	ref := r.push(t, "a", "b", img)
	s, layers := newStore(t, fast())
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			c := exec.Command(os.Args[0], "-test.run=^TestManyProcesses$", "-test.v")
			c.Env = append(os.Environ(), "IMAGE_TEST_STORE="+s.dir, "IMAGE_TEST_LAYERS="+layers.dir, "IMAGE_TEST_REF="+ref)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("process %d: %v\n%s", i, err, out)
			}
		})
	}
	wg.Wait()
	images, errs := s.List()
	if len(images) > 1 || len(errs) != 0 {
		t.Errorf("in the end: %v, %v", images, errs)
	}
	if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), mustGet(t, s, ref).ID, nobody, true); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s, layers)
}

// hammer does what a user of many terminals does. Conflicts are answers, not
// failures; a missing or damaged image after a pull is a failure.
func hammer(t *testing.T, dir, layerDir, ref string) {
	layers := &diskLayers{dir: layerDir, reads: map[string]int{}}
	s, err := Open(dir, layers, fast())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		img, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
		if err != nil {
			t.Errorf("pull: %v", err)
			continue
		}
		if held, release, err := s.Hold(img.ID); err == nil {
			for _, d := range held.DiffIDs {
				if !layers.HasLayer(d) {
					t.Errorf("layer %s of a held image is gone", d)
				}
			}
			release()
		}
		s.Tag(img.ID, fmt.Sprintf("name:%d-%d", os.Getpid(), i))
		if i%2 == 0 {
			s.Remove(t.Context(), img.ID, nobody, true)
		}
		if _, err := s.GC(t.Context()); err != nil {
			t.Errorf("gc: %v", err)
		}
	}
}

// TestKilledPull kills a pull at each of its steps. The next command finds an
// absent image or a whole one, and GC leaves nothing.
func TestKilledPull(t *testing.T) {
	if dir := os.Getenv("IMAGE_TEST_KILL"); dir != "" {
		s, err := Open(dir, &diskLayers{dir: os.Getenv("IMAGE_TEST_LAYERS"), reads: map[string]int{}}, fast())
		if err != nil {
			t.Fatal(err)
		}
		s.Pull(t.Context(), os.Getenv("IMAGE_TEST_REF"), PullOptions{Platform: "linux/amd64"})
		return
	}
	r := newRegistry(t)
	img := makeImage(t, imageSpec{layers: []testLayer{bigLayer(t, 100_000), bigLayer(t, 2<<20)}})
	ref := r.push(t, "a", "b", img)
	for _, step := range []string{"/v2/", "/manifests/b", digestOf(img.config), img.m.Layers[0].Digest.String(), img.m.Layers[1].Digest.String()} {
		s, layers := newStore(t, fast())
		c := exec.Command(os.Args[0], "-test.run=^TestKilledPull$")
		c.Env = append(os.Environ(), "IMAGE_TEST_KILL="+s.dir, "IMAGE_TEST_LAYERS="+layers.dir, "IMAGE_TEST_REF="+ref)
		started := make(chan *os.Process, 1)
		r.intercept(func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.HasSuffix(q.URL.Path, step) {
				return false
			}
			if b := img.blobs[filepath.Base(q.URL.Path)]; len(b) > 100 {
				rest := serve(w, q, b, true)
				w.Write(rest[:len(rest)/2])
				w.(http.Flusher).Flush()
			}
			select {
			case p := <-started:
				p.Kill()
			default: // killed already
			}
			<-q.Context().Done()
			return true
		})
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		started <- c.Process
		if err := c.Wait(); err == nil {
			t.Errorf("%s: the pull was not killed", step)
		}
		r.intercept(nil)
		if images, errs := s.List(); len(images) != 0 || len(errs) != 0 {
			t.Errorf("%s: left %v, %v", step, images, errs)
		}
		if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
			t.Errorf("%s: pull again: %v", step, err)
		}
		if _, err := s.Remove(t.Context(), ref, nobody, false); err != nil {
			t.Errorf("%s: remove: %v", step, err)
		}
		for _, n := range layers.kept(t) { // the fake's own temporary files are not ours
			if !strings.HasPrefix(n, "add-") && !strings.HasSuffix(n, ".lock") {
				t.Errorf("%s: layer %s is left", step, n)
			}
		}
	}
}

// TestParallelPulls: one process, one image, many pulls: each layer is read once.
func TestParallelPulls(t *testing.T) {
	r := newRegistry(t)
	ref := r.push(t, "a", "b", simple(t, 4))
	s, layers := newStore(t, fast())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Pull(context.Background(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for id, n := range layers.reads {
		if n != 1 {
			t.Errorf("layer %s was read %d times", id, n)
		}
	}
}

// TestBombs: what expands without end is stopped by its ratio, in little memory.
func TestBombs(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	bomb := gz(t, make([]byte, 16<<20))
	var blob []byte
	for range 128 { // 2 GiB out of 2 MiB, as one multi-member gzip
		blob = append(blob, bomb...)
	}
	plain := layerTar(t, "x", nil)
	r := newRegistry(t)
	ref := r.push(t, "a", "b", makeImage(t, imageSpec{layers: []testLayer{{plain, blob, ""}}}))
	s, layers := newStore(t, fast())
	sink := &sinkLayers{layers}
	s.layers = sink
	_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"})
	wantErr(t, err, ErrInvalid, "expand to more than")
	checkEmpty(t, s, layers)
	runtime.ReadMemStats(&after)
	if grown := after.Sys - before.Sys; grown > 256<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}
