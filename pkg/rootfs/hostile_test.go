package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A layer that aims at the host finds nothing there: files beside the store
// and in the working directory are neither read nor changed. The rows are
// CVE-2026-46703, CVE-2026-50163, CVE-2021-32760, CVE-2021-29136.
func TestHostIsOutOfReach(t *testing.T) {
	const secret = "canary-secret"
	work := t.TempDir()
	t.Chdir(work)
	canary := filepath.Join(work, "canary")
	if err := os.WriteFile(canary, []byte(secret), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(work, "dir"), 0o750); err != nil {
		t.Fatal(err)
	}
	before := listHost(t, work)
	up := strings.Repeat("../", 40)
	for name, files := range map[string][]file{
		"symlink to an absolute path, then through it": {symlink("l", work), reg("l/canary", "overwritten")},
		"symlink upwards, then through it":             {symlink("l", up+work), reg("l/canary", "overwritten")},
		"dot dot":                                      {reg(up+canary, "overwritten")},
		"absolute":                                     {reg(canary, "overwritten")},
		"hard link to the working directory":           {link("x", "canary")},
		"hard link to an absolute path":                {link("x", canary)},
		"hard link through a symlink":                  {symlink("l", work), link("x", "l/canary"), reg("x", "overwritten")},
		"symlink, then a directory of its name":        {symlink("l", filepath.Join(work, "dir")), dir("l/").with(mode(0o777))},
		"whiteout through a symlink":                   {symlink("l", work), reg("l/.wh.canary", "")},
		"opaque through a symlink":                     {symlink("l", work), reg("l/.wh..wh..opq", "")},
		"symlink to a symlink":                         {symlink("a", work), symlink("b", "a"), reg("b/new", "x"), reg("b/canary/x", "y")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Options{})
			layer := makeTar(t, files...)
			id := mustAdd(t, s, layer)
			if img, err := s.EnsureImage(t.Context(), []string{id}, EROFS); err == nil {
				for path, f := range listErofs(t, img) {
					if strings.Contains(f.content, secret) {
						t.Errorf("%s holds the secret", path)
					}
				}
			}
			compare(t, "before", before, "after", listHost(t, work))
		})
	}
}

// Where a header can be read in two ways, we see what GNU tar sees, or refuse
// (CVE-2025-62518, CVE-2026-33055).
func TestAgainstGNUTar(t *testing.T) {
	inner := blocks(rawHeader("smuggled", '0', "00000000003\x00", ""), []byte("abc"))
	size := func(n int) string { return fmt.Sprintf("%011o\x00", n) }
	for name, layer := range map[string][]byte{
		"pax size hides an inner tar":       append(pax('x', "size", fmt.Sprint(len(inner))), blocks(rawHeader("outer", '0', size(0), ""), inner, rawHeader("after", '0', size(0), ""), tarEnd)...),
		"pax size shows an inner tar":       append(pax('x', "size", "0"), blocks(rawHeader("outer", '0', size(len(inner)), ""), inner, rawHeader("after", '0', size(0), ""), tarEnd)...),
		"pax size before a directory":       append(pax('x', "size", fmt.Sprint(len(inner))), blocks(rawHeader("outer/", '5', size(0), ""), inner, tarEnd)...),
		"pax size before a symlink":         append(pax('x', "size", fmt.Sprint(len(inner))), blocks(rawHeader("outer", '2', size(0), "t"), inner, tarEnd)...),
		"hard link with a size":             blocks(rawHeader("f", '0', size(0), ""), rawHeader("outer", '1', size(len(inner)), "f"), inner, tarEnd),
		"symlink with a size":               blocks(rawHeader("outer", '2', size(len(inner)), "t"), inner, tarEnd),
		"fifo with a size":                  blocks(rawHeader("outer", '6', size(len(inner)), ""), inner, tarEnd),
		"directory with a size":             blocks(rawHeader("outer/", '5', size(len(inner)), ""), inner, tarEnd),
		"file with a slash":                 blocks(rawHeader("outer/", '0', size(len(inner)), ""), inner, tarEnd),
		"old file with a slash":             blocks(rawHeader("outer/", 0, size(len(inner)), ""), inner, tarEnd),
		"global size":                       append(pax('g', "size", fmt.Sprint(len(inner))), blocks(rawHeader("outer", '0', size(0), ""), inner, tarEnd)...),
		"two pax headers":                   append(append(pax('x', "size", "0"), pax('x', "size", fmt.Sprint(len(inner)))...), blocks(rawHeader("outer", '0', size(0), ""), inner, tarEnd)...),
		"pax size twice":                    append(pax('x', "size", "0", "size", fmt.Sprint(len(inner))), blocks(rawHeader("outer", '0', size(0), ""), inner, tarEnd)...),
		"pax path":                          append(pax('x', "path", "other"), blocks(rawHeader("outer", '0', size(0), ""), tarEnd)...),
		"pax path twice":                    append(pax('x', "path", "a", "path", "b"), blocks(rawHeader("outer", '0', size(0), ""), tarEnd)...),
		"pax size with base-256 in ustar":   append(pax('x', "size", "3"), blocks(rawHeader("outer", '0', "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00", ""), []byte("abc"), rawHeader("after", '0', size(0), ""), tarEnd)...),
		"pax size with spaces":              append(pax('x', "size", " 3"), blocks(rawHeader("outer", '0', size(0), ""), []byte("abc"), tarEnd)...),
		"pax size in hex":                   append(pax('x', "size", "0x200"), blocks(rawHeader("outer", '0', size(0), ""), inner, tarEnd)...),
		"one zero block, then more entries": blocks(rawHeader("a", '0', size(0), ""), make([]byte, 512), inner, tarEnd),
		"entries after the end":             append(blocks(rawHeader("a", '0', size(0), ""), tarEnd), inner...),
		"long name and pax path":            append(blocks(rawHeader("././@LongLink", 'L', size(9), ""), []byte("longname\x00")), append(pax('x', "path", "paxname"), blocks(rawHeader("outer", '0', size(0), ""), tarEnd)...)...),
		"sparse with a lying size":          append(pax('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "3"), blocks(rawHeader("outer", '0', size(512+len(inner)), ""), []byte("1\n0\n3\n"), inner, tarEnd)...),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Options{})
			id := diffIDOf(layer)
			if _, err := s.AddLayer(t.Context(), id, bytes.NewReader(layer)); err != nil {
				checkEmpty(t, s)
				return // refused
			}
			idx, err := readIndex(filepath.Join(s.layerDir(id[7:]), indexFile))
			if err != nil {
				t.Fatal(err)
			}
			var ours []string
			if err := idx.each(&s.limits, func(e *entry) error { ours = append(ours, e.path); return nil }); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tool(t, "tar"), "-t")
			cmd.Stdin = bytes.NewReader(layer)
			out, err := cmd.Output()
			if err != nil {
				t.Logf("tar: %v", err) // it may list and then complain
			}
			var theirs []string
			for line := range strings.Lines(string(out)) {
				theirs = append(theirs, strings.Trim(line, "/\n"))
			}
			if !slices.Equal(ours, theirs) {
				t.Errorf("we see %q, tar sees %q", ours, theirs)
			}
			checkLayerTar(t, s, id)
		})
	}
}

// A full disk is an error that says so; what was written is given back.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	mnt := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mnt)
	t.Cleanup(func() { run(t, "umount", mnt) })
	s, err := Open(filepath.Join(mnt, "rootfs"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	free := func() uint64 {
		var st syscall.Statfs_t
		if err := syscall.Statfs(mnt, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree
	}
	before := free()
	layer := bigLayer(t, "a", deviceMinData)
	if _, err := s.AddLayer(t.Context(), diffIDOf(layer), bytes.NewReader(layer)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
	checkEmpty(t, s)
	if after := free(); after != before {
		t.Errorf("%d blocks free, %d before", after, before)
	}
	// Removing works on a disk that is full.
	small := mustAdd(t, s, bigLayer(t, "b", 1<<20))
	filler := filepath.Join(mnt, "filler")
	if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill: %v", err)
	}
	if _, err := s.EnsureImage(t.Context(), []string{small}, EROFS); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
	checkNames(t, filepath.Join(s.dir, tmpDir))
	if freed, err := s.Remove(t.Context(), small); err != nil || freed < 1<<20 {
		t.Errorf("remove freed %d; %v", freed, err)
	}
	if _, err := os.Stat(s.layerDir(small[7:])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("layer is still there: %v", err)
	}
}
