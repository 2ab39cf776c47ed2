package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"io"
	"sync/atomic"
	"testing"
	"time"

	kgzip "github.com/klauspost/compress/gzip"
)

// hashLayers does what every LayerStore must at least: read and hash.
type hashLayers struct {
	*diskLayers
	added atomic.Bool
}

func (h *hashLayers) AddLayer(_ context.Context, _ string, r io.Reader) error {
	_, err := io.Copy(sha256.New(), r)
	h.added.Store(err == nil)
	return err
}

func (h *hashLayers) HasLayer(string) bool            { return h.added.Load() }
func (h *hashLayers) LayerSize(string) (int64, error) { return 0, nil }

// BenchmarkPull compares pulling one large layer with the least work that must
// be done for it on one core: decompress it, hash both forms. Two cores may
// beat that floor; the result is the ratio.
func BenchmarkPull(b *testing.B) {
	plain := layerTar(b, "text", textLike(96<<20))
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
	w.Write(plain)
	w.Close()
	r := newRegistry(b)
	ref := r.push(b, "a", "b", makeImage(b, imageSpec{layers: []testLayer{{plain, z.Bytes(), ""}}}))
	s, layers := newStore(b, fast())
	var floor, pull time.Duration
	for b.Loop() {
		start := time.Now()
		g, err := kgzip.NewReader(bytes.NewReader(z.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		sha256.Sum256(z.Bytes())
		if _, err := io.Copy(sha256.New(), g); err != nil {
			b.Fatal(err)
		}
		floor += time.Since(start)
		s.layers = &hashLayers{diskLayers: layers}
		start = time.Now()
		if _, err := s.Pull(b.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
			b.Fatal(err)
		}
		pull += time.Since(start)
	}
	b.SetBytes(int64(len(plain)))
	b.ReportMetric(pull.Seconds()/floor.Seconds(), "pull/floor")
}

// textLike compresses about as well as programs do.
func textLike(n int) []byte {
	b := make([]byte, n)
	x := uint32(7)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x>>28) + byte(i>>9)&15
	}
	return b
}
