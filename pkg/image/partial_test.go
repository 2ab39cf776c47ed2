package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// cutRegistry serves one image whose layer breaks off after limit bytes, and is
// not what it should be when it is bad.
type cutRegistry struct {
	*reg
	ref, layer string
	blob       []byte
	mu         sync.Mutex
	limit      int
	bad        bool
	hold       func()   // called at the limit, which then hangs
	asked      []string // ranges
}

func newCutRegistry(t *testing.T) *cutRegistry {
	t.Helper()
	noise := make([]byte, 400_000)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(noise); i++ {
		noise[i] = byte(r.Uint32())
	}
	plain := layerTar(t, "noise", noise)
	img := makeImage(t, imageSpec{layers: []testLayer{{plain: plain, stored: gz(t, plain)}}})
	c := &cutRegistry{reg: newRegistry(t), layer: img.m.Layers[0].Digest.String()}
	c.ref, c.blob = c.push(t, "a", "b", img), img.blobs[c.layer]
	c.intercept(c.serve)
	return c
}

func (c *cutRegistry) serve(w http.ResponseWriter, q *http.Request) bool {
	if !strings.Contains(q.URL.Path, c.layer) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, q.Header.Get("Range"))
	blob, limit := bytes.Clone(c.blob), c.limit
	if c.bad {
		blob[limit/2] ^= 0xff
	}
	if limit > 0 {
		blob = blob[:limit]
	}
	rest := serve(w, q, blob, true)
	if limit == 0 {
		w.Write(rest)
		return true
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(c.blob)))
	w.Write(rest)
	w.(http.Flusher).Flush()
	if c.hold != nil {
		go c.hold()
		<-q.Context().Done()
	}
	panic(http.ErrAbortHandler)
}

func (c *cutRegistry) set(limit int, bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.bad, c.asked = limit, bad, nil
}

func partialStore(t *testing.T, layers LayerStore) *Store {
	t.Helper()
	o := fast()
	o.Retries = -1
	s, err := Open(t.TempDir(), layers, o)
	if err != nil {
		t.Fatal(err)
	}
	s.minPartial = 10_000
	return s
}

func (s *Store) partSize(t *testing.T, layer string) int64 {
	t.Helper()
	st, err := os.Stat(filepath.Join(s.dir, dirPartial, hexOf(layer)))
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// TestPullGoesOn: a pull goes on where an earlier one broke off, or was called
// off, and leaves nothing once it is through.
func TestPullGoesOn(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		c := newCutRegistry(t)
		s := partialStore(t, newDiskLayers(t))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if cancelled {
			part := filepath.Join(s.dir, dirPartial, hexOf(c.layer))
			c.hold = func() {
				for {
					if st, err := os.Stat(part); err == nil && st.Size() > 0 {
						cancel()
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
		}
		c.set(300_000, false)
		if _, err := s.Pull(ctx, c.ref, PullOptions{Platform: "linux/amd64"}); err == nil {
			t.Fatal("a broken download gave an image")
		}
		had := s.partSize(t, c.layer)
		if had < 1 || had > 300_000 || !cancelled && had != 300_000 {
			t.Errorf("cancelled=%t: %d bytes were kept", cancelled, had)
		}
		c.set(0, false)
		if _, err := s.Pull(t.Context(), c.ref, PullOptions{Platform: "linux/amd64"}); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("bytes=%d-", had); len(c.asked) != 1 || c.asked[0] != want {
			t.Errorf("cancelled=%t: asked for %q, want %q", cancelled, c.asked, want)
		}
		if entries, err := os.ReadDir(filepath.Join(s.dir, dirPartial)); err != nil || len(entries) > 0 {
			t.Errorf("cancelled=%t: left behind: %v %v", cancelled, entries, err)
		}
	}
}

// TestBadPart: a part with wrong bytes costs one pull, not all that follow.
func TestBadPart(t *testing.T) {
	c := newCutRegistry(t)
	s := partialStore(t, newDiskLayers(t))
	c.set(300_000, true)
	if _, err := s.Pull(t.Context(), c.ref, PullOptions{Platform: "linux/amd64"}); err == nil {
		t.Fatal("a broken download gave an image")
	}
	c.set(0, false)
	_, err := s.Pull(t.Context(), c.ref, PullOptions{Platform: "linux/amd64"})
	if had := s.partSize(t, c.layer); err == nil || had != 0 {
		t.Errorf("pulled on wrong bytes: %v, %d bytes kept", err, had)
	}
	if _, err := s.Pull(t.Context(), c.ref, PullOptions{Platform: "linux/amd64"}); err != nil {
		t.Error(err)
	}
}

// refusing is a LayerStore that takes no layer.
type refusing struct{ *diskLayers }

func (refusing) AddLayer(_ context.Context, _ string, r io.Reader) error {
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		return err
	}
	return fmt.Errorf("%w: no", ErrInvalid)
}

// TestPartOfRefused: what is refused is not kept.
func TestPartOfRefused(t *testing.T) {
	c := newCutRegistry(t)
	s := partialStore(t, refusing{newDiskLayers(t)})
	_, err := s.Pull(t.Context(), c.ref, PullOptions{Platform: "linux/amd64"})
	wantErr(t, err, ErrInvalid)
	if had := s.partSize(t, c.layer); had != 0 {
		t.Errorf("%d bytes of a refused layer were kept", had)
	}
}

// TestOddParts: parts that are whole, too long, locked or old.
func TestOddParts(t *testing.T) {
	c := newCutRegistry(t)
	for name, tt := range map[string]struct {
		part   []byte
		locked bool
		asked  int
	}{
		"whole": {part: c.blob}, "too long": {part: append(bytes.Clone(c.blob), 1), asked: 1}, "locked": {part: []byte("?"), locked: true, asked: 1},
	} {
		s := partialStore(t, newDiskLayers(t))
		path := filepath.Join(s.dir, dirPartial, hexOf(c.layer))
		if err := os.WriteFile(path, tt.part, 0o600); err != nil {
			t.Fatal(err)
		}
		if tt.locked {
			l, err := state.TryLock(path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Unlock()
		}
		c.set(0, false)
		if _, err := s.Pull(t.Context(), c.ref, PullOptions{Platform: "linux/amd64"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(c.asked) != tt.asked || tt.asked == 1 && c.asked[0] != "" {
			t.Errorf("%s: asked for %q", name, c.asked)
		}
		if (s.partSize(t, c.layer) != 0) != tt.locked {
			t.Errorf("%s: %d bytes are there afterwards", name, s.partSize(t, c.layer))
		}
	}

	s := partialStore(t, newDiskLayers(t))
	old := time.Now().Add(-2 * partialLife)
	for name, when := range map[string]time.Time{"new": time.Now(), "old": old, "locked": old} {
		path := filepath.Join(s.dir, dirPartial, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	l, err := state.TryLock(filepath.Join(s.dir, dirPartial, "locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if freed, err := s.GC(t.Context()); err != nil || freed != 3 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if entries, err := os.ReadDir(filepath.Join(s.dir, dirPartial)); err != nil || len(entries) != 2 {
		t.Errorf("left: %v %v", entries, err)
	}
}
