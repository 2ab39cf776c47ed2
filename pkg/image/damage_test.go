package image

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

// TestDamagedIndex: each damage costs what was damaged and nothing else.
func TestDamagedIndex(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(lines []string) []string
		left int // sound images of three
		errs int
	}{
		"one line zeroed":   {func(l []string) []string { l[2] = strings.Repeat("\x00", len(l[2])); return l }, 2, 1},
		"one line cut":      {func(l []string) []string { l[2] = l[2][:20]; return l }, 2, 1},
		"file cut":          {func(l []string) []string { l[3] = l[3][:len(l[3])-5]; return l[:4] }, 2, 1},
		"header lost":       {func(l []string) []string { l[0] = "xx"; return l }, 3, 1},
		"header missing":    {func(l []string) []string { return l[1:] }, 3, 0},
		"wrong type":        {func(l []string) []string { l[1] = `{"id":7}`; return l }, 2, 1},
		"array":             {func(l []string) []string { l[1] = `[]`; return l }, 2, 1},
		"path as id":        {func(l []string) []string { l[1] = `{"id":"sha256:../../../etc/passwd"}`; return l }, 2, 1},
		"path as manifest":  {func(l []string) []string { l[1] = `{"id":"` + someDigest + `","manifest":"../x"}`; return l }, 2, 1},
		"bad name":          {func(l []string) []string { l[1] = `{"id":"` + someDigest + `","names":["A B"]}`; return l }, 2, 1},
		"name not normal":   {func(l []string) []string { l[1] = strings.Replace(l[1], `["`, `["docker.io/library/`, 1); return l }, 2, 1},
		"twice":             {func(l []string) []string { return append(l[:4], l[1], "") }, 3, 1},
		"config is gone":    {func(l []string) []string { l[1] = `{"id":"` + someDigest + `","names":["a:1"]}`; return l }, 2, 1},
		"everything zeroed": {func([]string) []string { return []string{strings.Repeat("\x00", 500)} }, 0, 1},
		"empty":             {func([]string) []string { return nil }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, layers := storeWith(t, map[string]*testImage{"a:1": simple(t, 1), "b:1": simple(t, 2), "c:1": simple(t, 3)})
			path := filepath.Join(s.dir, fileIndex)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := []byte(strings.Join(tc.edit(strings.Split(string(raw), "\n")), "\n"))
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			images, errs := s.List()
			if len(images) != tc.left || len(errs) != tc.errs {
				t.Errorf("%d sound, %v", len(images), errs)
			}
			for _, err := range errs {
				wantErr(t, err, ErrDamaged)
			}
			if tc.errs > 0 { // nobody knows what the damaged image needs
				if _, err := s.GC(t.Context()); err == nil || len(layers.kept(t)) != 3 {
					t.Errorf("GC went on: %v, %v", err, layers.kept(t))
				}
			}
			// A change keeps the damaged lines, Repair drops them.
			for _, img := range images {
				if err := s.Tag(img.ID, "new:"+img.ID[7:19]); err != nil {
					t.Error(err)
				}
			}
			if again, errs := s.List(); len(again) != tc.left || len(errs) > tc.errs {
				t.Errorf("after a change: %d sound, %v", len(again), errs)
			}
			if _, err := s.Repair(); err != nil {
				t.Error(err)
			}
			if again, _ := s.List(); len(again) != tc.left {
				t.Errorf("after repair: %d sound", len(again))
			}
		})
	}
}

func TestNewerIndex(t *testing.T) {
	s, _ := storeWith(t, map[string]*testImage{"a:1": simple(t, 1)})
	path := filepath.Join(s.dir, fileIndex)
	newer := []byte("{\"version\":2}\n{\"other\":true}\n")
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs := s.List()
	if len(errs) != 1 {
		t.Fatalf("%v", errs)
	}
	wantErr(t, errs[0], state.ErrNewer)
	wantErr(t, s.Tag("a:1", "b:1"), state.ErrNewer)
	_, err := s.GC(t.Context())
	wantErr(t, err, state.ErrNewer)
	if raw, _ := os.ReadFile(path); !bytes.Equal(raw, newer) {
		t.Error("the newer index was changed")
	}
}

// TestDamagedParts: a changed or lost config, manifest or layer is noticed, the
// image can be removed, and pulling it again heals it.
func TestDamagedParts(t *testing.T) {
	r := newRegistry(t)
	img := simple(t, 2)
	ref := r.push(t, "a", "b", img)
	config := func(s *Store, _ *diskLayers) string { return s.contentPath(digestOf(img.config)) }
	layer := func(_ *Store, l *diskLayers) string { return l.path(diffIDs(img)[1]) }
	for name, tc := range map[string]struct {
		path func(*Store, *diskLayers) string
		hurt func(string) error
	}{
		"config changed": {config, func(p string) error { return os.WriteFile(p, []byte(`{"rootfs":{}}`), 0o600) }},
		"config cut":     {config, func(p string) error { return os.Truncate(p, 10) }},
		"config gone":    {config, os.Remove},
		"layer gone":     {layer, os.Remove},
	} {
		t.Run(name, func(t *testing.T) {
			s, layers := newStore(t, fast())
			if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
				t.Fatal(err)
			}
			if err := tc.hurt(tc.path(s, layers)); err != nil {
				t.Fatal(err)
			}
			_, err := s.Get(ref)
			wantErr(t, err, ErrDamaged, ref)
			if images, errs := s.List(); len(images) != 0 || len(errs) != 1 {
				t.Errorf("%v, %v", images, errs)
			}
			if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/amd64"}); err != nil {
				t.Fatal(err)
			}
			mustGet(t, s, ref)
			if err := tc.hurt(tc.path(s, layers)); err != nil {
				t.Fatal(err)
			}
			got, err := s.Remove(t.Context(), ref, nobody, false)
			if err != nil || len(got.Deleted) != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			checkEmpty(t, s, layers)
		})
	}
}

// TestPrivate: with any umask, others see nothing.
func TestPrivate(t *testing.T) {
	s, _ := storeWith(t, map[string]*testImage{"a:1": simple(t, 1)})
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil && path != s.dir && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
