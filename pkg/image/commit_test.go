package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// committed is a store with an image to be committed on, and the options for that.
func committed(t *testing.T) (*Store, *diskLayers, CommitOptions) {
	t.Helper()
	s, layers := newStore(t, fast())
	base, err := s.Import(t.Context(), bytes.NewReader(layerTar(t, "a", []byte("a"))), ImportOptions{Name: "base", Platform: "linux/arm64"})
	if err != nil {
		t.Fatal(err)
	}
	return s, layers, CommitOptions{
		Base: base.ID, DiffIDs: base.DiffIDs, Platform: base.Platform,
		Settings: Settings{ImageConfig: ocispec.ImageConfig{Env: []string{"A=1"}, Cmd: []string{"sh"}}},
		Changes:  []string{"ENV B=2", `ENTRYPOINT ["/e"]`}, Name: "made", Author: "me", Message: "note", CreatedBy: "sh",
	}
}

func content(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func TestCommit(t *testing.T) {
	s, _, o := committed(t)
	layer := layerTar(t, ".wh.a", nil)
	img, err := s.Commit(t.Context(), o, content(layer))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(img.DiffIDs, append(slices.Clone(o.DiffIDs), digestOf(layer))) || img.Platform != "linux/arm64" || img.Names[0] != "made:latest" {
		t.Errorf("image %+v", img)
	}
	c := img.Config.Config
	if !slices.Equal(c.Env, []string{"A=1", "B=2"}) || !slices.Equal(c.Entrypoint, []string{"/e"}) || c.Cmd != nil {
		t.Errorf("config %+v", c)
	}
	last := img.Config.History[len(img.Config.History)-1]
	if len(img.Config.History) != 2 || last.CreatedBy != "sh" || last.Author != "me" || last.Comment != "note" || last.EmptyLayer {
		t.Errorf("history %+v", img.Config.History)
	}
}

// A layer of nothing is no layer, as in docker.
func TestCommitNothing(t *testing.T) {
	s, _, o := committed(t)
	img, err := s.Commit(t.Context(), o, content(makeTar(t)))
	if err != nil {
		t.Fatal(err)
	}
	if last := img.Config.History[1]; !slices.Equal(img.DiffIDs, o.DiffIDs) || !last.EmptyLayer {
		t.Errorf("layers %v, history %+v", img.DiffIDs, last)
	}
}

// The container outlives its image, whose layers it keeps.
func TestCommitWithoutImage(t *testing.T) {
	s, _, o := committed(t)
	o.Base = "sha256:" + strings.Repeat("0", 64)
	img, err := s.Commit(t.Context(), o, content(layerTar(t, "b", nil)))
	if err != nil {
		t.Fatal(err)
	}
	if img.Platform != "linux/arm64" || len(img.DiffIDs) != 2 || layersInHistory(img.Config.History) != 2 {
		t.Errorf("image %+v", img)
	}
}

func TestCommitFails(t *testing.T) {
	s, layers, good := committed(t)
	before := layers.kept(t)
	never := func() (io.ReadCloser, error) { t.Error("the layer was opened"); return nil, errors.New("x") }
	cause := errors.New("guest is gone")
	tests := map[string]struct {
		change func(*CommitOptions)
		layer  func() (io.ReadCloser, error)
	}{
		"name":   {func(o *CommitOptions) { o.Name = "BAD::" }, never},
		"change": {func(o *CommitOptions) { o.Changes = []string{"RUN x"} }, never},
		"open":   {nil, func() (io.ReadCloser, error) { return nil, cause }},
		"cut": {nil, func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(layerTar(t, "b", nil)), failing{cause})), nil
		}},
		"compressed":    {nil, content(gz(t, layerTar(t, "b", nil)))},
		"many layers":   {func(o *CommitOptions) { o.DiffIDs = slices.Repeat(o.DiffIDs, maxLayers) }, content(layerTar(t, "b", nil))},
		"large setting": {func(o *CommitOptions) { o.Message = strings.Repeat("x", maxDocument) }, content(layerTar(t, "b", nil))},
	}
	for name, tt := range tests {
		o := good
		if tt.change != nil {
			tt.change(&o)
		}
		if _, err := s.Commit(t.Context(), o, tt.layer); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if after := layers.kept(t); len(after) != len(before) {
		t.Errorf("layers %v, before %v", after, before)
	}
	if left, err := os.ReadDir(s.dir + "/" + dirTmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if list, problems := s.List(); len(list) != 1 || len(problems) > 0 {
		t.Errorf("images %v, %v", list, problems)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
