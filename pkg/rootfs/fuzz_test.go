package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"
)

// FuzzAddLayer: whatever the bytes, a layer is added whole or not at all; the
// tar of what was added is the bytes; an image of it builds or is refused, and
// a reader of it finds no fault.
func FuzzAddLayer(f *testing.F) {
	for _, layer := range roundTrips(f) {
		if len(layer) < 1<<16 {
			f.Add(layer)
		}
	}
	for _, tc := range mergeCases {
		for _, files := range tc.layers {
			f.Add(makeTar(f, files...))
		}
	}
	f.Fuzz(func(t *testing.T, layer []byte) {
		s := newStore(t, Options{Limits: Limits{Expanded: 1 << 20, Entries: 1000}})
		s.sync = false
		id := diffIDOf(layer)
		if _, err := s.AddLayer(t.Context(), id, bytes.NewReader(layer)); err != nil {
			if errors.Is(err, ErrCorrupt) {
				t.Errorf("new layer: %v", err)
			}
			checkEmpty(t, s)
			return
		}
		checkLayerTar(t, s, id)
		img, err := s.EnsureImage(t.Context(), []string{id}, EROFS)
		if err != nil {
			if errors.Is(err, ErrCorrupt) {
				t.Errorf("new layer: %v", err)
			}
			return
		}
		listErofs(t, img)
	})
}

// FuzzIndex: a damaged index with a right checksum is an error or a tree, and
// a tree is one that can be written.
func FuzzIndex(f *testing.F) {
	for _, tc := range mergeCases {
		for _, files := range tc.layers {
			var b []byte
			tr := tar.NewReader(bytes.NewReader(makeTar(f, files...)))
			limits := Limits{}.withDefaults()
			for {
				hdr, err := tr.Next()
				if err != nil {
					break
				}
				if e, ok, err := newEntry(hdr, &limits); err == nil && ok {
					if e.kind == kindFile && e.size > 0 {
						e.place = placeSmall
					}
					b = appendEntry(b, &e)
				}
			}
			f.Add(b, 3)
		}
	}
	f.Fuzz(func(t *testing.T, records []byte, entries int) {
		limits := Limits{Entries: 1000}.withDefaults()
		x := &index{footer: footer{entries: entries, smallSize: smallMax, dataSize: 1 << 20}, records: string(records)}
		tr := newTree(&limits, 0)
		if err := tr.apply(t.Context(), x); err != nil {
			return
		}
		live := tr.seal()
		if live > len(tr.inodes) {
			t.Errorf("%d of %d inodes live", live, len(tr.inodes))
		}
		w := &erofsWriter{t: tr, layers: []imageLayer{{}}}
		w.layout()
		for i := range tr.inodes {
			if in := &tr.inodes[i]; in.nlink > 0 && in.kind != kindFile {
				if _, err := w.appendInode(nil, uint32(i), 1); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// FuzzFrame: a damaged frame is an error, soon.
func FuzzFrame(f *testing.F) {
	layer := makeTar(f, reg("a", "small"), reg("b", string(make([]byte, 5000))))
	f.Add([]byte{1, 'x', byte(placeEnd)})
	f.Add([]byte{0, byte(placeSmall), 0, 5, 0, byte(placeData), 0, 2, 0, byte(placeEnd)})
	f.Fuzz(func(t *testing.T, frame []byte) {
		s := newStore(t, Options{})
		s.sync = false
		id := mustAdd(t, s, layer)
		writeFrame(t, filepath.Join(s.layerDir(id[7:]), frameFile), frame)
		r, err := s.LayerTar(id)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err == nil {
			return
		} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrDigest) {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzFooter: no footer is a panic.
func FuzzFooter(f *testing.F) {
	f.Add(footer{entries: 1, recordsSize: 10}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		foot, err := parseFooter(b)
		if err == nil && !bytes.Equal(foot.append(nil), b) {
			t.Errorf("%x is read as %+v", b, foot)
		}
	})
}
