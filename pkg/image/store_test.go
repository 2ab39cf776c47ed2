package image

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func nobody(string) []string { return nil }

func mustGet(t testing.TB, s *Store, ref string) *Image {
	t.Helper()
	img, err := s.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestTag(t *testing.T) {
	one, two := simple(t, 1), simple(t, 2)
	s, _ := storeWith(t, map[string]*testImage{"one:1": one, "two:1": two})
	if err := s.Tag("one:1", "docker.io/library/web"); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, s, "web:latest"); got.ID != digestOf(one.config) || !slices.Equal(got.Names, []string{"one:1", "web:latest"}) {
		t.Errorf("web is %+v", got)
	}
	if err := s.Tag(digestOf(two.config)[7:19], "web"); err != nil { // the name moves
		t.Fatal(err)
	}
	if got := mustGet(t, s, "web"); got.ID != digestOf(two.config) {
		t.Errorf("web is still %s", got.ID)
	}
	if got := mustGet(t, s, "one:1"); !slices.Equal(got.Names, []string{"one:1"}) {
		t.Errorf("one has %q", got.Names)
	}
	wantErr(t, s.Tag("nope", "x"), ErrNotFound)
	for _, bad := range []string{"X", "a@" + someDigest, "oci:/d:t", "docker-daemon:x", ""} {
		wantErr(t, s.Tag("one:1", bad), ErrReference)
	}
}

func TestLookup(t *testing.T) {
	one, two := simple(t, 1), simple(t, 2)
	s, _ := storeWith(t, map[string]*testImage{"one:1": one, "two:1": two})
	_, err := s.Get("")
	wantErr(t, err, ErrReference)
	_, err = s.Get("sha256:" + strings.Repeat("0", 64))
	wantErr(t, err, ErrNotFound)
	_, err = s.Get("no such name")
	wantErr(t, err, ErrReference)
	_, err = s.Get("one") // one:latest
	wantErr(t, err, ErrNotFound)
	// A name wins over an id prefix.
	prefix := digestOf(one.config)[7:13]
	if err := s.Tag("two:1", prefix); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, s, prefix); got.ID != digestOf(two.config) {
		t.Error("an id prefix hides a name")
	}
	x := &index{records: []*record{{ID: digestPrefix + strings.Repeat("a", 64)}, {ID: digestPrefix + "ab" + strings.Repeat("a", 62)}}}
	_, err = x.find("a")
	wantErr(t, err, ErrAmbiguous)
	if r, err := x.find("ab"); err != nil || r != x.records[1] {
		t.Errorf("unique prefix: %v", err)
	}
	if r, err := x.find(strings.Repeat("a", 64)); err != nil || r != x.records[0] {
		t.Errorf("complete id: %v", err)
	}
}

func TestRemove(t *testing.T) {
	img := simple(t, 2)
	used := func(string) []string { return []string{"container web"} }
	for name, tc := range map[string]struct {
		names, ref string
		inUse      func(string) []string
		force      bool
		is         error
		says       string
		untagged   []string
		deleted    bool
	}{
		"last name":             {"a:1", "a:1", nobody, false, nil, "", []string{"a:1"}, true},
		"one of two":            {"a:1 b:1", "a:1", nobody, false, nil, "", []string{"a:1"}, false},
		"one of two, used":      {"a:1 b:1", "a:1", used, false, nil, "", []string{"a:1"}, false},
		"by id":                 {"a:1", "ID", nobody, false, nil, "", []string{"a:1"}, true},
		"by id, two names":      {"a:1 b:1", "ID", nobody, false, ErrConflict, "several names (a:1, b:1)", nil, false},
		"by id, two, force":     {"a:1 b:1", "ID", nobody, true, nil, "", []string{"a:1", "b:1"}, true},
		"used":                  {"a:1", "a:1", used, false, ErrConflict, "in use by container web", nil, false},
		"used, force":           {"a:1", "a:1", used, true, nil, "", []string{"a:1"}, false},
		"used, by id, force":    {"a:1 b:1", "ID", used, true, nil, "", []string{"a:1", "b:1"}, false},
		"used, nameless, force": {"", "ID", used, true, ErrConflict, "in use by", nil, false},
		"nameless":              {"", "ID", nobody, false, nil, "", nil, true},
		"unknown":               {"a:1", "c:1", nobody, false, ErrNotFound, "remove image c:1", nil, false},
		"nil callback":          {"a:1", "a:1", nil, false, nil, "", []string{"a:1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, layers := storeWith(t, map[string]*testImage{tc.names: img})
			ref := strings.Replace(tc.ref, "ID", digestOf(img.config)[7:19], 1)
			got, err := s.Remove(t.Context(), ref, tc.inUse, tc.force)
			if tc.is != nil {
				wantErr(t, err, tc.is, tc.says)
			} else if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Untagged, tc.untagged) || (len(got.Deleted) == 1) != tc.deleted {
				t.Errorf("removed %+v", got)
			}
			if tc.deleted {
				checkEmpty(t, s, layers)
				return
			}
			if again := mustGet(t, s, digestOf(img.config)); len(again.Names) != len(strings.Fields(tc.names))-len(tc.untagged) {
				t.Errorf("left with %q", again.Names)
			}
		})
	}
}

// TestRemoveForgetsDigests: a digest that was pulled goes with the last tag of
// its repository.
func TestRemoveForgetsDigests(t *testing.T) {
	s, layers := storeWith(t, map[string]*testImage{"r.example/a:1 r.example/a:2 b:1": simple(t, 1)})
	pulled, other := "r.example/a@"+someDigest, "r.example/c@"+someDigest
	if err := s.update(func(x *index) error {
		x.records[0].Digests = []string{pulled, other}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		ref      string
		untagged []string
	}{
		{"r.example/a:1", []string{"r.example/a:1"}},
		{"r.example/a:2", []string{"r.example/a:2", pulled}},
		{other, []string{other}},
		{"b:1", []string{"b:1"}},
	} {
		got, err := s.Remove(t.Context(), step.ref, nobody, false)
		if err != nil || !slices.Equal(got.Untagged, step.untagged) {
			t.Errorf("%s: %+v, %v, want %v", step.ref, got, err, step.untagged)
		}
	}
	checkEmpty(t, s, layers)
}

// TestRemoveKeepsSharedLayers: only what nobody else needs goes.
func TestRemoveKeepsSharedLayers(t *testing.T) {
	s, layers := storeWith(t, map[string]*testImage{"two:1": simple(t, 2), "three:1": simple(t, 3)})
	if len(layers.kept(t)) != 3 {
		t.Fatalf("%v", layers.kept(t))
	}
	if _, err := s.Remove(t.Context(), "three:1", nobody, false); err != nil {
		t.Fatal(err)
	}
	if len(layers.kept(t)) != 2 {
		t.Errorf("%v", layers.kept(t))
	}
	mustGet(t, s, "two:1")
}

func TestHold(t *testing.T) {
	img := simple(t, 1)
	s, layers := storeWith(t, map[string]*testImage{"a:1": img})
	_, release, err := s.Hold("a:1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Remove(t.Context(), "a:1", nobody, true)
	wantErr(t, err, ErrConflict, "just now")
	release()
	if _, err := s.Remove(t.Context(), "a:1", nobody, false); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s, layers)
	_, _, err = s.Hold("a:1")
	wantErr(t, err, ErrNotFound)
}

// TestGC: what crashes left goes, what a pull is about to use stays.
func TestGC(t *testing.T) {
	s, layers := storeWith(t, map[string]*testImage{"a:1": simple(t, 1)})
	stray := layerTar(t, "stray", []byte("x"))
	leased := layerTar(t, "leased", []byte("x"))
	for _, b := range [][]byte{stray, leased} {
		if err := layers.AddLayer(t.Context(), digestOf(b), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.putContent(digestOf(stray), stray); err != nil {
		t.Fatal(err)
	}
	l, err := s.acquire(someDigest, []string{digestOf(leased)})
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(s.dir, dirLeases, "dead")
	tmp := filepath.Join(s.dir, dirTmp, "spool-1")
	for _, p := range []string{dead, tmp} {
		if err := os.WriteFile(p, []byte(`{"layers":["`+digestOf(stray)+`"]}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantFound(t, s, dead, tmp, s.contentPath(digestOf(stray)))
	freed, err := s.GC(t.Context())
	if err != nil || freed < int64(2*len(stray)) {
		t.Errorf("freed %d, %v", freed, err)
	}
	if layers.HasLayer(digestOf(stray)) || !layers.HasLayer(digestOf(leased)) {
		t.Errorf("kept %v", layers.kept(t))
	}
	for _, p := range []string{dead, tmp, s.contentPath(digestOf(stray))} {
		if _, err := os.Stat(p); !os.IsNotExist(err) {
			t.Errorf("%s is still there", p)
		}
	}
	wantFound(t, s)
	mustGet(t, s, "a:1")
	l.release()
	if _, err := s.GC(t.Context()); err != nil || layers.HasLayer(digestOf(leased)) {
		t.Errorf("kept after the lease: %v, %v", layers.kept(t), err)
	}
}

// TestRemoveDigests: with the last tag in a repository its digests go too, and
// the digests of another keep the image.
func TestRemoveDigests(t *testing.T) {
	img := simple(t, 1)
	s, _, r, ref := pulled(t, img)
	dst := r.host + "/copy:v1"
	if err := s.Tag(ref, dst); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(t.Context(), dst, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	digest := "@" + digestOf(img.manifest)
	nobody := func(string) []string { return nil }
	got, err := s.Remove(t.Context(), dst, nobody, false)
	if err != nil || !slices.Equal(got.Untagged, []string{dst, r.host + "/copy" + digest}) || len(got.Deleted) != 0 {
		t.Errorf("the copy: %+v, %v", got, err)
	}
	got, err = s.Remove(t.Context(), ref, nobody, false)
	if err != nil || !slices.Equal(got.Untagged, []string{ref, r.host + "/base/one" + digest}) || len(got.Deleted) != 1 || got.Freed == 0 {
		t.Errorf("the last: %+v, %v", got, err)
	}
}
