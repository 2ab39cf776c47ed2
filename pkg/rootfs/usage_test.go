package rootfs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	s := newStore(t, Options{})
	if u, err := s.Usage(); err != nil || len(u.Layers)+len(u.Images) != 0 || u.Other != 0 {
		t.Errorf("empty: %+v, %v", u, err)
	}
	small := mustAdd(t, s, makeTar(t, reg("a", "text")))
	large := mustAdd(t, s, makeTar(t, reg("b", strings.Repeat("x", 3<<20))))
	both := []string{small, large}
	img := mustImage(t, s, Ext4, both...)
	if err := os.Mkdir(filepath.Join(s.dir, imagesDir, "damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range both {
		if l, err := s.Layer(d); err != nil || l.Size != u.Layers[d] || l.Size == 0 {
			t.Errorf("layer %s: %d, %+v, %v", d, u.Layers[d], l, err)
		}
	}
	if u.Layers[large] < 3<<20 || len(u.Layers) != 2 || len(u.Images) != 2 {
		t.Errorf("%+v", u)
	}
	for _, i := range u.Images {
		if i.DiffIDs != nil && (i.Size != img.Size || !slices.Equal(i.DiffIDs, both)) {
			t.Errorf("%+v, want %d", i, img.Size)
		}
	}
}
