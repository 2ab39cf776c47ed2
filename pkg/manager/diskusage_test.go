package manager

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/micropod/micropod/pkg/rootfs"
)

// What several images share is counted once.
func TestParts(t *testing.T) {
	p := newParts(rootfs.Usage{
		Layers: map[string]int64{"base": 1000, "a": 10, "b": 20, "orphan": 5},
		Images: []rootfs.ImageUsage{
			{DiffIDs: []string{"base", "a"}, Size: 1}, {DiffIDs: []string{"base", "a"}, Size: 2}, // two formats
			{DiffIDs: []string{"base", "gone"}, Size: 4}, {Size: 8}, // of no image; damaged
		},
	})
	a, b := []string{"base", "a"}, []string{"base", "b", "b"}
	if got := p.total(); got != 1050 {
		t.Errorf("total %d", got)
	}
	for name, c := range map[string]struct {
		lists [][]string
		want  int64
	}{
		"none": {nil, 0}, "a": {[][]string{a}, 1013}, "a twice": {[][]string{a, a}, 1013}, "both": {[][]string{a, b}, 1033},
	} {
		if got := p.of(c.lists...); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	uses := p.uses([]Image{{ID: "A", DiffIDs: a}, {ID: "B", DiffIDs: b}}, map[string]int{"B": 3})
	if len(uses) != 2 || uses[0].Shared != 1000 || uses[0].Unique != 13 || uses[0].Containers != 0 ||
		uses[1].Shared != 1000 || uses[1].Unique != 20 || uses[1].Containers != 3 {
		t.Errorf("%+v", uses)
	}
}

func TestBlocksBelow(t *testing.T) {
	dir := t.TempDir()
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	if err := sparse.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "d", "full"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := blocksBelow(dir); err != nil || got < 1<<20 || got > 2<<20 {
		t.Errorf("%d, %v", got, err)
	}
	if got, err := blocksBelow(filepath.Join(dir, "none")); err != nil || got != 0 {
		t.Errorf("of nothing: %d, %v", got, err)
	}
}
