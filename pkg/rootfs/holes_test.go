package rootfs

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A holeWriter is a file to whoever writes it.
func TestHoleWriter(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 50 {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := &holeWriter{f: f}
		var want []byte
		for range 40 {
			if rnd.IntN(4) == 0 {
				if _, err := w.Seek(rnd.Int64N(int64(len(want))+9000), io.SeekStart); err != nil {
					t.Fatal(err)
				}
			}
			p := make([]byte, rnd.IntN(5*blockSize))
			for i := range p {
				if i/1500%(1+rnd.IntN(3)) == 1 {
					p[i] = byte(rnd.Uint32())
				}
			}
			if rnd.IntN(2) == 0 {
				clear(p)
			}
			if end := int(w.pos) + len(p); end > len(want) {
				want = append(want, make([]byte, end-len(want))...)
			}
			copy(want[w.pos:], p)
			if n, err := w.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		w.pos = 0
		if err := w.finish(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, want %d; %v", len(got), len(want), err)
		}
	}
}

func TestSparseInExt4(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, makeSparse(100<<20, nil))
	img := mustImage(t, s, Ext4, id)
	if img.Size > 1<<20 {
		t.Errorf("image takes %d bytes", img.Size)
	}
	if ext := listExt4(t, img); ext != nil {
		compare(t, "erofs", withoutDirLinks(list(t, mustImage(t, s, EROFS, id))), "ext4", withoutDirLinks(ext))
	}
}
