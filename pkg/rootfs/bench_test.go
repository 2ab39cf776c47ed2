package rootfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"
)

// benchTar is a layer like those of language images: most files small, most
// bytes in few.
func benchTar(b *testing.B, files int) []byte {
	b.Helper()
	rnd := rand.New(rand.NewPCG(1, 1))
	words := strings.Fields("the of kernel layer image function return const import export module disk data := { } ( ) ; 0 1 \n\t")
	var text strings.Builder
	for text.Len() < 4<<20 {
		text.WriteString(words[rnd.IntN(len(words))])
		fmt.Fprintf(&text, "%d ", rnd.IntN(5000))
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := range files {
		size := 100 + rnd.IntN(4000)
		if i%20 == 0 {
			size = 20_000 + rnd.IntN(800_000)
		}
		at := rnd.IntN(text.Len() - size)
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/lib/d%d/e%d/file%d.js", i%97, i%1009, i), Mode: 0o644, Size: int64(size)}
		if err := w.WriteHeader(hdr); err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(w, text.String()[at:at+size]); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// BenchmarkAddLayer is from a gzip blob to a layer in the store; the floor is
// BenchmarkGunzipHash. Compare the two of one run.
func BenchmarkAddLayer(b *testing.B) {
	layer := benchTar(b, 8000)
	blob := gzipped(b, layer)
	id := diffIDOf(layer)
	s := newStore(b, Options{})
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		r, err := kgzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.AddLayer(b.Context(), id, r); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := s.Remove(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkGunzipHash(b *testing.B) {
	layer := benchTar(b, 8000)
	blob := gzipped(b, layer)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		r, err := kgzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(sha256.New(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func gzipped(b *testing.B, data []byte) []byte {
	b.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// BenchmarkEnsureImage merges a layer of 50,000 small files and one on top.
func BenchmarkEnsureImage(b *testing.B) {
	var files []file
	for i := range 50_000 {
		files = append(files, reg(fmt.Sprintf("node_modules/p%d/lib/f%d.js", i%500, i), strings.Repeat("x", i%900)))
	}
	for _, format := range []Format{EROFS, Ext4} {
		b.Run(string(format), func(b *testing.B) {
			s := newStore(b, Options{})
			ids := []string{mustAdd(b, s, makeTar(b, files...)), mustAdd(b, s, makeTar(b, reg("node_modules/p7/.wh.lib", ""), reg("x", "y")))}
			for b.Loop() {
				mustImage(b, s, format, ids...)
				b.StopTimer()
				if _, err := s.PruneImages(b.Context(), func([]string) bool { return false }); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkLayerTar(b *testing.B) {
	layer := benchTar(b, 8000)
	s := newStore(b, Options{})
	id := mustAdd(b, s, layer)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		r, err := s.LayerTar(id)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
