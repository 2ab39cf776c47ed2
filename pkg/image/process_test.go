package image

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

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
