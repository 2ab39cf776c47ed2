package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// writeFrame replaces a frame file by these records.
func writeFrame(t testing.TB, path string, records []byte) {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(records); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// roundTrips are tars that a reader of archive/tar could not write again.
func roundTrips(t testing.TB) map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3<<20)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	plain := makeTar(t, dir("d/"), reg("d/a", "1"), reg("d/big", string(noise)), reg("d/e", ""), link("l", "d/a"), symlink("s", "d"), reg("d/2048", strings.Repeat("y", 2048)), reg("d/2049", strings.Repeat("z", 2049)))
	return map[string][]byte{
		"plain":               plain,
		"empty":               {},
		"only the end":        tarEnd,
		"no end":              plain[:len(plain)-1024],
		"noise after the end": append(bytes.Clone(plain), noise...),
		"one byte after":      append(bytes.Clone(plain), 7),
		"another tar after":   append(bytes.Clone(plain), plain...),
		"record padding":      append(bytes.Clone(plain), make([]byte, 10240)...),
		"noise as padding": func() []byte {
			b := blocks(rawHeader("a", '0', "00000000001\x00", ""), []byte("x"), tarEnd)
			copy(b[513:], noise[:511])
			return b
		}(),
		"pax names":            makeTar(t, reg(strings.Repeat("long/", 60)+"é", "x").with(xattr("user.a", "b"))),
		"gnu names":            makeTar(t, reg(strings.Repeat("long/", 60)+"x", "x").with(func(h *tar.Header) { h.Format = tar.FormatGNU }), symlink("s", strings.Repeat("t", 300)).with(func(h *tar.Header) { h.Format = tar.FormatGNU })),
		"global header":        append(pax('g', "comment", "hello"), plain...),
		"pax size":             append(pax('x', "size", "5"), blocks(rawHeader("a", '0', "00000000000\x00", ""), []byte("12345"), tarEnd)...),
		"old format":           blocks(rawHeader("a", 0, "00000000002\x00", ""), []byte("hi"), rawHeader("old/", 0, "00000000000\x00", ""), tarEnd),
		"whiteout with bytes":  makeTar(t, reg(".wh.a", "why not"), reg(".wh..wh.aufs", strings.Repeat("x", 9000)), reg("b", "x")),
		"base-256 size":        blocks(rawHeader("a", '0', "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03", ""), []byte("abc"), tarEnd),
		"sparse":               makeSparse(10<<20, noise[:8192]),
		"sparse and small":     makeSparse(1500, nil),
		"small and big zeroes": makeTar(t, reg("a", string(make([]byte, 100))), reg("b", string(make([]byte, 1<<20))), reg("c", string(make([]byte, 5<<20))+"end")),
	}
}

func TestLayerTar(t *testing.T) {
	for name, layer := range roundTrips(t) {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Options{})
			id := mustAdd(t, s, layer)
			r, err := s.LayerTar(id)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			// In odd pieces, to cross every border of parts.
			got, err := io.ReadAll(iotest.HalfReader(r))
			if err != nil || !bytes.Equal(got, layer) {
				t.Errorf("%d bytes, want %d; %v", len(got), len(layer), err)
			}
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

func TestLayerTarDamaged(t *testing.T) {
	layer := makeTar(t, reg("a", "small"), reg("b", strings.Repeat("big", 5000)))
	for _, name := range []string{dataFile, smallFile, frameFile} {
		for what, damage := range map[string]func([]byte) []byte{
			"changed": func(b []byte) []byte { b[len(b)/3] ^= 1; return b },
			"cut":     func(b []byte) []byte { return b[:len(b)/2] },
			"emptied": func([]byte) []byte { return nil },
		} {
			s := newStore(t, Options{})
			id := mustAdd(t, s, layer)
			path := filepath.Join(s.layerDir(id[7:]), name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := s.LayerTar(id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.Copy(io.Discard, r); !errors.Is(err, ErrDigest) && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s %s: got %v", name, what, err)
			}
			r.Close()
		}
	}
}
