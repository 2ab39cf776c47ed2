package main

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// tree is what one layer holds, by path without a leading slash.
type tree map[string]entry

type entry struct {
	*tar.Header
	content []byte
}

func epoch() time.Time { return time.Unix(1_700_000_000, 0).UTC() }

// add puts an entry in place; what h leaves out is that of root's plain file.
func (t tree) add(h tar.Header, content string) *tar.Header {
	h.Size = int64(len(content))
	if h.ModTime.IsZero() {
		h.ModTime = epoch()
	}
	t[h.Name] = entry{&h, []byte(content)}
	return &h
}

func (t tree) dir(name string, mode int64) *tar.Header {
	return t.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, "")
}

func (t tree) file(name string, mode int64, content string) *tar.Header {
	return t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
}

func (t tree) symlink(name, target string) {
	t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "")
}

func (t tree) link(name, target string) {
	t.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, "")
}

// layer packs the tree: parents before children, hard links after their file.
func (t tree) layer(c compression.Compression, more ...tarball.LayerOption) (v1.Layer, error) {
	t.parents()
	names := slices.SortedFunc(maps.Keys(t), func(a, b string) int {
		if la, lb := t[a].Typeflag == tar.TypeLink, t[b].Typeflag == tar.TypeLink; la != lb {
			if lb {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range names {
		e := t[name]
		h := *e.Header
		if file, ok := t[h.Linkname]; ok && h.Typeflag == tar.TypeLink {
			// As tar writes it: docker gives the file what its links say.
			h.Mode, h.Uid, h.Gid, h.ModTime = file.Mode, file.Uid, file.Gid, file.ModTime
		}
		h.Format = tar.FormatPAX
		h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
		h.ModTime = h.ModTime.Truncate(time.Second)
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	media := types.OCILayer
	if c == compression.ZStd {
		media = types.OCILayerZStd
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	o := []tarball.LayerOption{tarball.WithCompression(c), tarball.WithMediaType(media)}
	return tarball.LayerFromOpener(open, append(o, more...)...)
}

// parents adds the directories that no package and no test names. A whiteout
// needs none: it is about a directory below.
func (t tree) parents() {
	for name := range maps.Clone(t) {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if _, ok := t[d]; !ok {
				t.dir(d, 0o755)
			}
		}
	}
}
