package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// bigLayer has n bytes of data that compress to nothing else's.
func bigLayer(t *testing.T, name string, n int) []byte {
	body := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", name))))
	if _, err := rnd.Read(body); err != nil {
		t.Fatal(err)
	}
	return makeTar(t, reg(name, string(body)), reg(name+".small", name), reg(name+".tail", strings.Repeat(name, 3000)))
}

// Nine layers over the limit: the eight biggest are devices, in the order of
// the layers; the data of the others is in the image.
func TestDevices(t *testing.T) {
	s := newStore(t, Options{})
	var ids []string
	want := map[string]string{}
	for i := range 12 {
		size := deviceMinData + (i*7%12)*4096 - 3*4096 // not in order of size; three are below the limit
		layer := bigLayer(t, fmt.Sprintf("f%02d", i), size)
		ids = append(ids, mustAdd(t, s, layer))
		for _, f := range []string{"", ".small", ".tail"} {
			want[fmt.Sprintf("f%02d%s", i, f)] = ""
		}
	}
	img := mustImage(t, s, EROFS, ids...)
	if len(img.Disks) != 1+maxDevices {
		t.Fatalf("%d disks: %q", len(img.Disks), img.Disks)
	}
	var devices, big []string
	smallest := int64(1 << 62)
	for _, disk := range img.Disks[1:] {
		devices = append(devices, "sha256:"+filepath.Base(filepath.Dir(disk)))
		st, err := os.Stat(disk)
		if err != nil {
			t.Fatal(err)
		}
		smallest = min(smallest, st.Size())
	}
	for _, id := range ids {
		if size, _ := dataUsage(t, s, id); size > smallest || slices.Contains(devices, id) {
			big = append(big, id)
		}
	}
	if !slices.Equal(big, devices) {
		t.Errorf("devices are %q, want the biggest in order: %q", devices, big)
	}
	if smallest < deviceMinData {
		t.Errorf("a device of %d bytes", smallest)
	}
	all := list(t, img)
	delete(all, ".")
	if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("files: %q", got)
	}
	for name, f := range all {
		if strings.HasSuffix(name, ".small") && f.content != strings.TrimSuffix(name, ".small") {
			t.Errorf("%s: %q", name, f.content)
		}
	}
	if ext := listExt4(t, mustImage(t, s, Ext4, ids...)); ext != nil {
		delete(ext, ".")
		compare(t, "erofs", all, "ext4", ext)
	}
}

// The same layers give the same bytes, in another store and at another time.
func TestDeterministic(t *testing.T) {
	for _, f := range []Format{EROFS, Ext4} {
		var first []string
		for range 2 {
			s := newStore(t, Options{})
			a, b := mustAdd(t, s, bigLayer(t, "a", deviceMinData+100)), mustAdd(t, s, roundTrips(t)["plain"])
			c := mustAdd(t, s, makeTar(t, reg("x", "").with(xattr("user.a", "1")).with(xattr("user.b", "2")).with(xattr("user.c", "3"))))
			var sums []string
			img := mustImage(t, s, f, a, b, c)
			for _, disk := range img.Disks {
				content, err := os.ReadFile(disk)
				if err != nil {
					t.Fatal(err)
				}
				if len(content)%blockSize != 0 {
					t.Errorf("%s: %d bytes are no whole blocks", disk, len(content))
				}
				sums = append(sums, diffIDOf(content))
			}
			sums = append(sums, img.Key)
			if first == nil {
				first = sums
			} else if !slices.Equal(first, sums) {
				t.Errorf("%s: %q, then %q", f, first, sums)
			}
		}
	}
}

// Directories of many blocks, names of every length, and inodes with xattrs of
// every size around the ends of blocks.
func TestShapes(t *testing.T) {
	var files []file
	for i := range 3000 {
		files = append(files, reg(fmt.Sprintf("big/%s%d", strings.Repeat("n", i%240), i), strings.Repeat("c", i%2300)))
	}
	files = append(files, reg("big/!before-dot", ""), reg("big/-", ""), reg("big/.", "").with(func(h *tar.Header) { h.Name = "big/..." }))
	for i := range 150 {
		f := reg(fmt.Sprintf("x/%d", i), strings.Repeat("c", i*31))
		files = append(files, f.with(xattr("user.a", strings.Repeat("v", i*37))).with(xattr("user."+strings.Repeat("n", i), "")))
		files = append(files, symlink(fmt.Sprintf("s/%d", i), strings.Repeat("t", 1+i*27)))
		files = append(files, dir(fmt.Sprintf("d/%d/", i)).with(xattr("user.b", strings.Repeat("w", i*29))))
	}
	huge := reg("huge", "x")
	for i := range 8 {
		huge = huge.with(xattr(fmt.Sprintf("user.%d", i), strings.Repeat("h", 8000)))
	}
	s := newStore(t, Options{})
	id := mustAdd(t, s, makeTar(t, append(files, huge)...))
	all := list(t, mustImage(t, s, EROFS, id))
	if got := all[fmt.Sprintf("x/%d", 149)]; got.size != 149*31 || len(got.xattrs) < 149*37 {
		t.Errorf("x/149: %v", got)
	}
	if got := all["huge"]; len(got.xattrs) < 64000 {
		t.Errorf("huge: %d bytes of xattrs", len(got.xattrs))
	}
	if len(all) != len(files)+1+5 {
		t.Errorf("%d files, want %d", len(all), len(files)+6)
	}
}

// A damaged index is an error that says so; it is not a panic nor an image.
func TestDamagedIndex(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, makeTar(t, dir("d/"), reg("d/a", "1"), symlink("s", "d")))
	path := filepath.Join(s.layerDir(id[7:]), indexFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.EnsureImage(t.Context(), []string{id}, EROFS); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d changed: got %v, want %v", i, err, ErrCorrupt)
		}
	}
	for n := range len(good) {
		if err := os.WriteFile(path, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.EnsureImage(t.Context(), []string{id}, EROFS); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: got %v, want %v", n, err, ErrCorrupt)
		}
		if _, err := s.Layer(id); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Layer, cut to %d bytes: got %v, want %v", n, err, ErrCorrupt)
		}
	}
	// Removing and adding repairs.
	if _, err := s.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, makeTar(t, dir("d/"), reg("d/a", "1"), symlink("s", "d")))
	mustImage(t, s, EROFS, id)
}

func TestEnsureImageCached(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, bigLayer(t, "a", deviceMinData))
	first := mustImage(t, s, EROFS, id)
	before, err := os.Stat(first.Disks[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.layerDir(id[7:]), smallFile)); err != nil { // it is not needed again
		t.Fatal(err)
	}
	second := mustImage(t, s, EROFS, id)
	after, err := os.Stat(second.Disks[0])
	if err != nil || !os.SameFile(before, after) || !slices.Equal(first.Disks, second.Disks) {
		t.Errorf("built again: %+v, %+v, %v", first, second, err)
	}
	// A device that is gone is an error, not an image without it.
	if err := os.Remove(first.Disks[1]); err != nil {
		t.Fatal(err)
	}
	if img, err := s.EnsureImage(t.Context(), []string{id}, EROFS); err == nil {
		t.Errorf("image with a missing device: %+v", img)
	}
}

func TestDamagedImageIsRebuilt(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, makeTar(t, reg("a", "1")))
	img := mustImage(t, s, EROFS, id)
	for _, damage := range []func() error{
		func() error { return os.Remove(img.Disks[0]) },
		func() error {
			return os.WriteFile(filepath.Join(filepath.Dir(img.Disks[0]), infoFile), []byte("{"), 0o600)
		},
		func() error {
			return os.WriteFile(filepath.Join(filepath.Dir(img.Disks[0]), infoFile), []byte(`{"format":"ext4","diffIDs":[]}`), 0o600)
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if got := briefs(listErofs(t, mustImage(t, s, EROFS, id))); !slices.Equal(got, []string{"a file 1"}) {
			t.Errorf("%q", got)
		}
	}
}

func TestEnsureImageCancelled(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, makeTar(t, reg("a", "1")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range []Format{EROFS, Ext4} {
		if _, err := s.EnsureImage(ctx, []string{id}, f); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", f, err)
		}
	}
	checkNames(t, filepath.Join(s.dir, imagesDir))
	checkNames(t, filepath.Join(s.dir, tmpDir))
}

// Of many that want an image one builds it: the disk that the first has
// opened is not replaced by another.
func TestConcurrentImage(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, bigLayer(t, "a", deviceMinData))
	for _, f := range []Format{EROFS, Ext4} {
		infos := make([]os.FileInfo, 8)
		var wg sync.WaitGroup
		for i := range infos {
			wg.Go(func() {
				img, err := s.EnsureImage(t.Context(), []string{id}, f)
				if err != nil {
					t.Error(err)
					return
				}
				if infos[i], err = os.Stat(img.Disks[0]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, info := range infos[1:] {
			if !os.SameFile(info, infos[0]) {
				t.Errorf("%s: built more than once", f)
			}
		}
	}
}
