package rootfs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// makeSparse returns a tar with one PAX 1.0 sparse file of size bytes, that
// has data at its start and in its last bytes.
func makeSparse(size int64, data []byte) []byte {
	if data == nil {
		data = []byte("data")
	}
	n := int64(len(data))
	m := fmt.Sprintf("2\n0\n%d\n%d\n%d\n", n, size-4, 4)
	body := append(blocks([]byte(m)), data...)
	body = append(body, "tail"...)
	head := pax('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sparse", "GNU.sparse.realsize", fmt.Sprint(size))
	return append(head, blocks(rawHeader("GNUSparseFile.0/sparse", '0', fmt.Sprintf("%011o\x00", len(body)), ""), body, tarEnd)...)
}

func dataUsage(t *testing.T, s *Store, id string) (size, used int64) {
	t.Helper()
	st, err := os.Stat(filepath.Join(s.layerDir(id[7:]), dataFile))
	if err != nil {
		t.Fatal(err)
	}
	return st.Size(), st.Sys().(*syscall.Stat_t).Blocks * 512
}

// A tar of a few kB with a file of gigabytes takes a few kB, in the layer and
// in an image that packs other layers.
func TestSparseStaysSparse(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, makeSparse(256<<20, nil))
	if size, used := dataUsage(t, s, id); size != 256<<20 || used > 64<<10 {
		t.Errorf("data of %d bytes takes %d", size, used)
	}
	// Eight bigger layers, as sparse, push it out of the devices.
	ids := []string{id}
	for i := range maxDevices {
		ids = append(ids, mustAdd(t, s, makeSparse(256<<20+int64(i+1)*4096, nil)))
	}
	img := mustImage(t, s, EROFS, ids...)
	if len(img.Disks) != 1+maxDevices {
		t.Errorf("%d disks", len(img.Disks))
	}
	if img.Size > 128<<10 {
		t.Errorf("image takes %d bytes", img.Size)
	}
	img = mustImage(t, s, EROFS, id)
	f := listErofs(t, img)["sparse"]
	want := make([]byte, 256<<20)
	copy(want, "data")
	copy(want[len(want)-4:], "tail")
	if sum, _ := digestContent(bytes.NewReader(want), int64(len(want))); f.content != sum {
		t.Errorf("sparse file reads %s, want %s", f.content, sum)
	}
}

// The sparse formats of GNU tar, written by GNU tar.
func TestSparseFormats(t *testing.T) {
	src := t.TempDir()
	f, err := os.Create(filepath.Join(src, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 40 {
		if _, err := fmt.Fprintf(f, "%d", i); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(int64(i)<<14, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(30 << 20); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	sum, _ := digestContent(bytes.NewReader(want), int64(len(want)))
	for _, args := range [][]string{{"--format=gnu"}, {"--format=pax", "--sparse-version=0.0"}, {"--format=pax", "--sparse-version=0.1"}, {"--format=pax", "--sparse-version=1.0"}} {
		layer, err := exec.Command(tool(t, "tar"), append(args, "-S", "-C", src, "-c", ".")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(layer) > 1<<20 {
			t.Fatalf("%v: tar did not write a sparse file", args)
		}
		s := newStore(t, Options{})
		id := mustAdd(t, s, layer)
		if got := list(t, mustImage(t, s, EROFS, id))["holes"]; got.content != sum {
			t.Errorf("%v: reads %s, want %s", args, got.content, sum)
		}
		if _, used := dataUsage(t, s, id); used > 512<<10 {
			t.Errorf("%v: takes %d bytes", args, used)
		}
		checkLayerTar(t, s, id)
	}
}

func checkLayerTar(t *testing.T, s *Store, id string) {
	t.Helper()
	r, err := s.LayerTar(id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Errorf("tar of layer: %v", err)
	}
	if got := diffIDOf(b.Bytes()); got != id {
		t.Errorf("tar of layer hashes to %s", got)
	}
}

// A sparse map without end is an error before it is memory (CVE-2025-58183).
func TestSparseMapBomb(t *testing.T) {
	var m strings.Builder
	const entries = 5_000_000
	fmt.Fprintf(&m, "%d\n", entries)
	for i := range entries {
		fmt.Fprintf(&m, "%d\n1\n", i*2)
	}
	body := []byte(m.String())
	head := pax('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", fmt.Sprint(entries*2))
	layer := append(head, blocks(rawHeader("s", '0', fmt.Sprintf("%011o\x00", len(body)), ""), body, tarEnd)...)
	s := newStore(t, Options{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	id := diffIDOf(layer)
	if _, err := s.AddLayer(t.Context(), id, bytes.NewReader(layer)); err == nil {
		t.Error("no error")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("allocated %d bytes", n)
	}
	checkEmpty(t, s)
}
