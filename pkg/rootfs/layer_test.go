package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// checkEmpty fails when the store has anything but its directories.
func checkEmpty(t *testing.T, s *Store) {
	t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(s.dir, path); err != nil || strings.Contains(rel, "/") || !d.IsDir() {
			t.Errorf("left behind: %s %v", rel, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAddLayerRejects(t *testing.T) {
	deep := strings.Repeat("d/", 1100) + "f"
	long := func(h *tar.Header) { h.Format = tar.FormatGNU }
	for _, tc := range []struct {
		name string
		tar  []byte
		want error
	}{
		{"root is a symlink", makeTar(t, symlink("./", "/etc")), ErrLayer},
		{"root is a symlink by another name", makeTar(t, symlink("a/..", "/etc")), ErrLayer},
		{"root is a file", makeTar(t, reg(".", "x")), ErrLayer},
		{"root is a device", makeTar(t, special("..", tar.TypeChar, 1, 3)), ErrLayer},
		{"empty name", blocks(rawHeader("", '0', "00000000000\x00", ""), tarEnd), ErrLayer},
		{"whiteout of nothing", makeTar(t, reg("a/.wh.", "")), ErrLayer},
		{"whiteout of dot", makeTar(t, reg("a/.wh..", "")), ErrLayer},
		{"whiteout of dot dot", makeTar(t, reg("a/.wh...", "")), ErrLayer},
		{"below a whiteout", makeTar(t, reg(".wh.a/b", "")), ErrLayer},
		{"uid 2^32-1", makeTar(t, reg("a", "").with(owner(1<<32-1, 0))), ErrLayer},
		{"gid 2^32", makeTar(t, reg("a", "").with(owner(0, 1<<32))), ErrLayer},
		{"negative uid", makeTar(t, reg("a", "").with(owner(-1, 0)).with(long)), ErrLayer},
		{"name of 256 bytes", makeTar(t, reg(strings.Repeat("a", 256), "")), ErrLayer},
		{"directory name of 256 bytes", makeTar(t, reg(strings.Repeat("a", 256)+"/x", "")), ErrLayer},
		{"path of 4096 bytes", makeTar(t, reg(strings.Repeat("abcdefg/", 512)+"a", "")), ErrLimit},
		{"too deep", makeTar(t, reg(deep, "")), ErrLimit},
		{"empty symlink", blocks(rawHeader("a", '2', "00000000000\x00", ""), tarEnd), ErrLayer},
		{"symlink of 4096 bytes", makeTar(t, symlink("a", strings.Repeat("x", 4096))), ErrLayer},
		{"hard link to the root", makeTar(t, link("a", "../..")), ErrLayer},
		{"device major over 12 bits", makeTar(t, special("a", tar.TypeBlock, 4096, 0).with(long)), ErrLayer},
		{"device minor over 20 bits", makeTar(t, special("a", tar.TypeBlock, 0, 1<<20).with(long)), ErrLayer},
		{"unknown type", blocks(rawHeader("a", 'Z', "00000000000\x00", ""), tarEnd), ErrLayer},
		{"multi-volume", blocks(rawHeader("a", 'M', "00000000000\x00", ""), tarEnd), ErrLayer},
		{"hard link with contents", blocks(rawHeader("a", '1', "00000000003\x00", "b"), []byte("xyz"), tarEnd), ErrLayer},
		{"directory with contents", blocks(rawHeader("a/", '5', "00000001000\x00", ""), make([]byte, 512), tarEnd), ErrLayer},
		{"file named as a directory", blocks(rawHeader("a/", '0', "00000000000\x00", ""), tarEnd), ErrLayer},
		{"large xattrs", makeTar(t, reg("a", "").with(xattr("user.a", strings.Repeat("x", 40000))).with(xattr("user.b", strings.Repeat("x", 40000)))), ErrLimit},
		{"bad checksum", append(bytes.Repeat([]byte("x"), 512), tarEnd...), ErrLayer},
		{"contents cut short", makeTar(t, reg("a", strings.Repeat("x", 5000)))[:3000], ErrLayer},
		{"header cut short", makeTar(t, reg("a", "x"))[:300], ErrLayer},
		{"negative size", blocks(rawHeader("a", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", ""), tarEnd), ErrLayer},
		{"huge size", blocks(rawHeader("a", '0', "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", ""), tarEnd), ErrLimit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, Options{})
			_, err := s.AddLayer(t.Context(), diffIDOf(tc.tar), bytes.NewReader(tc.tar))
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			checkEmpty(t, s)
		})
	}
}

// These are legal as layers; the image that they are part of is not.
func TestImageRejects(t *testing.T) {
	long := strings.Repeat("x/", 2000)
	for _, tc := range []struct {
		name   string
		layers [][]file
		want   error
	}{
		{"symlink loop", [][]file{{symlink("a", "b"), symlink("b", "a"), reg("a/x", "")}}, ErrLayer},
		{"file as a parent", [][]file{{reg("a", "")}, {reg("a/x", "")}}, ErrLayer},
		{"hard link to nothing", [][]file{{link("a", "b")}}, ErrLayer},
		{"hard link to a later file", [][]file{{link("a", "b"), reg("b", "")}}, ErrLayer},
		{"hard link to a directory", [][]file{{dir("d/"), link("a", "d")}}, ErrLayer},
		{"hard link to a removed file", [][]file{{reg("b", "")}, {reg(".wh.b", ""), link("a", "b")}}, ErrLayer},
		{"depth through symlinks", [][]file{{dir(strings.Repeat("d/", 700)), symlink("s", strings.Repeat("d/", 700)), reg("s/"+strings.Repeat("e/", 700)+"f", "")}}, ErrLimit},
		{"symlink to a long name", [][]file{{symlink("s", strings.Repeat("n", 300)), reg("s/x", "")}}, ErrLayer},
		{"a symlink that grows", [][]file{{symlink("x", long), reg("x/f", "")}}, ErrLayer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, Options{})
			var ids []string
			for _, files := range tc.layers {
				ids = append(ids, mustAdd(t, s, makeTar(t, files...)))
			}
			for _, f := range []Format{EROFS, Ext4} {
				if _, err := s.EnsureImage(t.Context(), ids, f); !errors.Is(err, tc.want) {
					t.Errorf("%s: got %v, want %v", f, err, tc.want)
				}
			}
			checkNames(t, filepath.Join(s.dir, imagesDir))
			checkNames(t, filepath.Join(s.dir, tmpDir))
		})
	}
	t.Run("no layers", func(t *testing.T) {
		if _, err := newStore(t, Options{}).EnsureImage(t.Context(), nil, EROFS); err == nil {
			t.Error("no error")
		}
	})
	t.Run("missing layer", func(t *testing.T) {
		if _, err := newStore(t, Options{}).EnsureImage(t.Context(), []string{diffIDOf(nil)}, EROFS); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("digest as path", func(t *testing.T) {
		s := newStore(t, Options{})
		for _, id := range []string{"", "sha256:", "sha256:../../x", "sha512:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("../", 21) + "x"} {
			if _, err := s.EnsureImage(t.Context(), []string{id}, EROFS); err == nil {
				t.Errorf("EnsureImage %q: no error", id)
			}
			if _, err := s.AddLayer(t.Context(), id, strings.NewReader("")); err == nil {
				t.Errorf("AddLayer %q: no error", id)
			}
			if _, err := s.LayerTar(id); err == nil {
				t.Errorf("LayerTar %q: no error", id)
			}
			if s.HasLayer(id) {
				t.Errorf("HasLayer %q", id)
			}
		}
	})
}

// checkNames fails unless dir is empty but for names.
func checkNames(t *testing.T, dir string, names ...string) {
	t.Helper()
	have, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range have {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("%s has %q, want %q", dir, got, names)
	}
}

func TestLimits(t *testing.T) {
	many := func(n int) (files []file) {
		for i := range n {
			files = append(files, reg(fmt.Sprintf("f%d", i), ""))
		}
		return files
	}
	for _, tc := range []struct {
		name   string
		limits Limits
		tar    []byte
	}{
		{"entries", Limits{Entries: 10}, makeTar(t, many(11)...)},
		{"tar size", Limits{TarSize: 4096}, makeTar(t, reg("a", strings.Repeat("x", 4096)))},
		{"bytes after the end", Limits{TarSize: 1 << 20}, append(makeTar(t, reg("a", "x")), make([]byte, 2<<20)...)},
		{"contents", Limits{Expanded: 5000}, makeTar(t, reg("a", strings.Repeat("x", 2501)), reg("b", strings.Repeat("x", 2500)))},
		{"index", Limits{IndexSize: 100}, makeTar(t, many(20)...)},
		{"sparse file", Limits{}, makeSparse(1<<40, nil)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, Options{Limits: tc.limits})
			if _, err := s.AddLayer(t.Context(), diffIDOf(tc.tar), bytes.NewReader(tc.tar)); !errors.Is(err, ErrLimit) {
				t.Errorf("got %v, want %v", err, ErrLimit)
			}
			checkEmpty(t, s)
		})
	}
	t.Run("files of an image", func(t *testing.T) {
		s := newStore(t, Options{Limits: Limits{Entries: 10}})
		a, b := mustAdd(t, s, makeTar(t, many(8)...)), mustAdd(t, s, makeTar(t, reg("x/y/z", "")))
		if _, err := s.EnsureImage(t.Context(), []string{a, b}, EROFS); !errors.Is(err, ErrLimit) {
			t.Errorf("got %v, want %v", err, ErrLimit)
		}
	})
}

func TestAddLayerDigest(t *testing.T) {
	layer := makeTar(t, reg("a", strings.Repeat("x", 5000)))
	s := newStore(t, Options{})
	for name, other := range map[string][]byte{
		"changed contents":     bytes.Replace(layer, []byte("xx"), []byte("xy"), 1),
		"bytes after the end":  append(bytes.Clone(layer), 0),
		"changed padding":      append(bytes.Clone(layer[:len(layer)-1]), 1),
		"end of archive left":  layer[:len(layer)-512],
		"an empty stream":      nil,
		"nothing but the end":  tarEnd,
		"changed unused field": func() []byte { b := bytes.Clone(layer); b[505] = 1; return checksummed(b[:512:512]) }(),
	} {
		if _, err := s.AddLayer(t.Context(), diffIDOf(layer), bytes.NewReader(other)); !errors.Is(err, ErrDigest) && !errors.Is(err, ErrLayer) {
			t.Errorf("%s: got %v, want %v", name, err, ErrDigest)
		}
		checkEmpty(t, s)
	}
	boom := errors.New("connection reset")
	_, err := s.AddLayer(t.Context(), diffIDOf(layer), io.MultiReader(bytes.NewReader(layer[:2000]), iotest.ErrReader(boom)))
	if !errors.Is(err, boom) || errors.Is(err, ErrLayer) {
		t.Errorf("error of the stream: got %v", err)
	}
	checkEmpty(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.AddLayer(ctx, diffIDOf(layer), io.MultiReader(bytes.NewReader(layer[:2000]), readerFunc(func([]byte) (int, error) {
		cancel()
		return 1, nil
	})))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	checkEmpty(t, s)
}

// A layer that is there is not read again.
func TestAddLayerTwice(t *testing.T) {
	s := newStore(t, Options{})
	layer := makeTar(t, reg("a", "x"))
	first, err := s.AddLayer(t.Context(), diffIDOf(layer), bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.AddLayer(t.Context(), diffIDOf(layer), iotest.ErrReader(errors.New("read")))
	if err != nil || first != second {
		t.Errorf("second: %+v %v, first: %+v", second, err, first)
	}
	if first.Entries != 1 || first.TarSize != int64(len(layer)) || first.Size <= 0 {
		t.Errorf("%+v", first)
	}
}

func TestDroppedXattrsAreLogged(t *testing.T) {
	var log bytes.Buffer
	s := newStore(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	mustAdd(t, s, makeTar(t, reg("a", "").with(xattr("trusted.overlay.opaque", "y")), reg("b", "").with(xattr("trusted.overlay.opaque", "y"))))
	if n := strings.Count(log.String(), "trusted.overlay.opaque"); n != 1 {
		t.Errorf("logged %d times, want once: %s", n, &log)
	}
}

func TestStoreIsPrivate(t *testing.T) {
	s := newStore(t, Options{})
	id := mustAdd(t, s, makeTar(t, reg("a", strings.Repeat("x", 5000))))
	mustImage(t, s, EROFS, id)
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
