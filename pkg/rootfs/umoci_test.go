package rootfs

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unpack has umoci unpack an OCI image of these layers and lists it.
func unpack(t *testing.T, layers [][]byte) map[string]found {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("umoci unpack with owners needs root")
	}
	dir := t.TempDir()
	blob := func(b []byte) map[string]any {
		id := diffIDOf(b)
		path := filepath.Join(dir, "oci", "blobs", "sha256", id[7:])
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"digest": id, "size": len(b)}
	}
	typed := func(d map[string]any, mediaType string) map[string]any {
		d["mediaType"] = "application/vnd.oci.image." + mediaType
		return d
	}
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var diffIDs, descs []any
	for _, l := range layers {
		diffIDs = append(diffIDs, diffIDOf(l))
		descs = append(descs, typed(blob(l), "layer.v1.tar"))
	}
	config := encode(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	manifest := typed(blob(encode(map[string]any{"schemaVersion": 2, "config": typed(blob(config), "config.v1+json"), "layers": descs})), "manifest.v1+json")
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "x"}
	for name, v := range map[string]any{
		"index.json": map[string]any{"schemaVersion": 2, "manifests": []any{manifest}},
		"oci-layout": map[string]any{"imageLayoutVersion": "1.0.0"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "oci", name), encode(v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "umoci", "unpack", "--image", filepath.Join(dir, "oci")+":x", filepath.Join(dir, "bundle"))
	return listHost(t, filepath.Join(dir, "bundle", "rootfs"))
}

// randomLayer returns a layer that means the same to every extractor: parents
// before children, whiteouts first and of what exists, links to what exists.
// have is what lower layers have, kept up to date.
func randomLayer(rnd *rand.Rand, have map[string]byte) (files []file) {
	names := []string{"a", "b", "c", "etc", "lib"}
	attr := func(h *tar.Header) {
		h.Mode = []int64{0o600, 0o755, 0o4711, 0o1777}[rnd.IntN(4)]
		h.Uid, h.Gid = rnd.IntN(3), rnd.IntN(70000)
		h.ModTime, h.Format = time.Unix(rnd.Int64N(2e9), rnd.Int64N(1e9)), tar.FormatPAX
	}
	drop := func(path string) {
		for p := range have {
			if p == path || strings.HasPrefix(p, path+"/") {
				delete(have, p)
			}
		}
	}
	for p := range sortedKeys(have) {
		if _, ok := have[p]; ok && rnd.IntN(12) == 0 {
			d, b := filepath.Split(p)
			files = append(files, reg(d+".wh."+b, ""))
			drop(p)
		}
	}
	for p, typ := range sortedKeys(have) {
		if typ == tar.TypeDir && rnd.IntN(20) == 0 && have[p] != 0 {
			files = append(files, reg(p+"/.wh..wh..opq", ""))
			drop(p)
			have[p] = tar.TypeDir
		}
	}
	dirs := []string{""}
	for range 2 + rnd.IntN(20) {
		p := dirs[rnd.IntN(len(dirs))] + names[rnd.IntN(len(names))]
		if d := filepath.Dir(p); d != "." && have[d] != tar.TypeDir {
			continue // replaced meanwhile
		}
		old := have[p]
		switch rnd.IntN(6) {
		case 0, 1:
			files = append(files, dir(p+"/").with(attr))
			if old != tar.TypeDir {
				drop(p)
			}
			have[p] = tar.TypeDir
			dirs = append(dirs, p+"/")
		case 2, 3:
			drop(p)
			have[p] = tar.TypeReg
			f := reg(p, strings.Repeat(fmt.Sprint(rnd.IntN(100)), 1+rnd.IntN(4000))).with(attr)
			if rnd.IntN(3) == 0 {
				f = f.with(xattr("user.x", fmt.Sprint(rnd.IntN(10))))
			}
			files = append(files, f)
		case 4:
			drop(p)
			have[p] = tar.TypeSymlink
			files = append(files, symlink(p, names[rnd.IntN(len(names))]).with(attr))
		case 5:
			for target, typ := range sortedKeys(have) {
				if typ == tar.TypeReg && target != p && !strings.HasPrefix(target, p+"/") {
					drop(p)
					have[p] = tar.TypeReg
					files = append(files, link(p, target))
					break
				}
			}
		}
	}
	return files
}

// sortedKeys ranges over a copy of m, in order.
func sortedKeys(m map[string]byte) func(yield func(string, byte) bool) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return func(yield func(string, byte) bool) {
		for _, k := range keys {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// Random images are what umoci makes of them.
func TestAgainstUmoci(t *testing.T) {
	tool(t, "umoci")
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			have := map[string]byte{}
			s := newStore(t, Options{})
			var layers [][]byte
			var ids []string
			for range 1 + rnd.IntN(5) {
				layer := makeTar(t, randomLayer(rnd, have)...)
				layers = append(layers, layer)
				ids = append(ids, mustAdd(t, s, layer))
			}
			ours, theirs := list(t, mustImage(t, s, EROFS, ids...)), unpack(t, layers)
			delete(ours, ".") // ours is root's by rule
			delete(theirs, ".")
			compare(t, "ours", lastingAttributes(ours), "umoci", lastingAttributes(theirs))
			for path := range ours {
				if have[path] == 0 {
					t.Errorf("%s should not be there", path)
				}
			}
		})
	}
}

// lastingAttributes drops what two extractors may do in their own way.
func lastingAttributes(all map[string]found) map[string]found {
	out := withoutDirLinks(all)
	for path, f := range out {
		if f.mode&0o170000 == 0o040000 {
			f.sec, f.nsec = 0, 0 // of a directory changed by an upper layer that has no entry for it
		}
		out[path] = f
	}
	return out
}
