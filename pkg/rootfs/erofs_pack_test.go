package rootfs

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// What the packer places does not overlap, does not cross the end of a block
// without need, and is never so far behind that the window has passed it.
func TestPacker(t *testing.T) {
	sequences := map[string]func(i int, rnd *rand.Rand) int{
		"random":       func(_ int, rnd *rand.Rand) int { return 64 + rnd.IntN(2300) },
		"mostly small": func(_ int, rnd *rand.Rand) int { return 64 + rnd.IntN(200)*rnd.IntN(2)*rnd.IntN(8) },
		"with big ones": func(i int, rnd *rand.Rand) int {
			if i%500 == 0 {
				return 64 + rnd.IntN(100_000)
			}
			return 64 + rnd.IntN(500)
		},
		// A rest of 64 bytes that fits nothing until far behind.
		"one old rest": func(i int, _ *rand.Rand) int {
			if i == 0 {
				return blockSize - 64
			} else if i%20_000 == 0 {
				return 64
			}
			return 128
		},
	}
	for name, size := range sequences {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "image"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			rnd := rand.New(rand.NewPCG(7, 7))
			p := packer{next: blockSize}
			w := newWindow(f, blockSize)
			used := map[int64]bool{}
			for i := range 30_000 {
				n := size(i, rnd)
				at := p.place(n)
				if at%inodeAlign != 0 || n <= blockSize && at/blockSize != (at+int64(n)-1)/blockSize {
					t.Fatalf("%d bytes at %d", n, at)
				}
				for o := at / inodeAlign; o*inodeAlign < at+int64(n); o++ {
					if used[o] {
						t.Fatalf("%d bytes at %d overlap", n, at)
					}
					used[o] = true
				}
				if err := w.writeAt(make([]byte, n), at); err != nil {
					t.Fatal(err)
				}
			}
			if full := int64(len(used)) * inodeAlign; (p.next-blockSize)*9/10 > full {
				t.Errorf("%d bytes take %d", full, p.next-blockSize)
			}
		})
	}
}
