package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

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
