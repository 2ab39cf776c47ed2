package archive

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestPlace(t *testing.T) {
	file := func(p string) End { return End{Path: p, Exists: true} }
	dir := func(p string) End { return End{Path: p, Exists: true, IsDir: true} }
	link := func(p, name string) End { return End{Path: p, Exists: true, IsDir: true, Rename: name} }
	none := func(p string) End { return End{Path: p} }
	tests := []struct {
		src, dst End
		want     Placement
		err      error
	}{
		{file("/a/f"), none("/b/g"), Placement{"/b", "f", "g"}, nil},
		{file("/a/f"), none("/b/g/"), Placement{}, ErrDirNotExists},
		{file("/a/f"), none("/b/g/."), Placement{}, ErrDirNotExists},
		{file("/a/f"), file("/b/g"), Placement{"/b", "f", "g"}, nil},
		{file("/a/f"), dir("/b"), Placement{"/b", "f", "f"}, nil},
		{file("/a/f"), dir("/b/"), Placement{"/b/", "f", "f"}, nil},
		{file("/a/f"), dir("/"), Placement{"/", "f", "f"}, nil},
		{file("/a/f"), none("/g"), Placement{"/", "f", "g"}, nil},
		{dir("/a/d"), none("/b/e"), Placement{"/b", "d", "e"}, nil},
		{dir("/a/d"), none("/b/e/"), Placement{"/b", "d", "e"}, nil},
		{dir("/a/d"), file("/b/g"), Placement{}, ErrCopyDir},
		{dir("/a/d"), dir("/b"), Placement{"/b", "d", "d"}, nil},
		{dir("/a/d/"), dir("/b"), Placement{"/b", "d", "d"}, nil},
		{dir("/a/d/."), dir("/b"), Placement{"/b", ".", "."}, nil},
		{dir("/a/d/."), none("/b/e"), Placement{"/b", ".", "e"}, nil},
		{dir("/a/d/."), file("/b/g"), Placement{}, ErrCopyDir},
		{dir("/"), dir("/b"), Placement{"/b", ".", "."}, nil},
		{dir("/"), none("/b/e"), Placement{"/b", ".", "e"}, nil},
		{link("/a/target", "name"), dir("/b"), Placement{"/b", "target", "name"}, nil},
		{link("/a/target", "name"), none("/b/e"), Placement{"/b", "target", "e"}, nil},
	}
	for _, tt := range tests {
		got, err := Place(tt.src, tt.dst)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Place(%+v, %+v) = %+v, %v; want %+v, %v", tt.src, tt.dst, got, err, tt.want, tt.err)
		}
	}
}

// tree makes a file, a directory with a file, and links to both.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	must(t, os.WriteFile(dir+"/file", []byte("content"), 0o640))
	must(t, os.MkdirAll(dir+"/dir/sub", 0o750))
	must(t, os.WriteFile(dir+"/dir/sub/file", []byte("below"), 0o600))
	must(t, os.Symlink("dir", dir+"/link"))
	must(t, os.Symlink("file", dir+"/filelink"))
	must(t, os.Symlink("new", dir+"/dangling"))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSource(t *testing.T) {
	d := tree(t)
	tests := []struct {
		path   string
		follow bool
		want   End
		fails  bool
	}{
		{"/file", false, End{Path: "/file"}, false},
		{"/dir", false, End{Path: "/dir", IsDir: true}, false},
		{"/dir/.", false, End{Path: "/dir/.", IsDir: true}, false},
		{"/link", false, End{Path: "/link"}, false},
		{"/link", true, End{Path: "/dir", IsDir: true, Rename: "link"}, false},
		{"/link/", false, End{Path: "/dir/", IsDir: true, Rename: "link"}, false},
		{"/link/.", false, End{Path: "/dir/.", IsDir: true}, false},
		{"/link/sub", false, End{Path: "/dir/sub", IsDir: true}, false},
		{"/filelink", true, End{Path: "/file", Rename: "filelink"}, false},
		{"/file/", false, End{}, true},
		{"/none", false, End{}, true},
		{"/dangling", true, End{}, true},
	}
	for _, tt := range tests {
		got, err := Source(d+tt.path, tt.follow)
		if tt.fails != (err != nil) {
			t.Errorf("Source(%s): %v", tt.path, err)
			continue
		}
		if !tt.fails {
			tt.want.Path, tt.want.Exists = d+tt.want.Path, true
		}
		if got != tt.want {
			t.Errorf("Source(%s, %v) = %+v, want %+v", tt.path, tt.follow, got, tt.want)
		}
	}
}

func TestDestination(t *testing.T) {
	d := tree(t)
	must(t, os.Symlink("loop", d+"/loop"))
	tests := []struct {
		path  string
		want  End
		fails bool
	}{
		{"/file", End{Path: "/file", Exists: true}, false},
		{"/dir", End{Path: "/dir", Exists: true, IsDir: true}, false},
		{"/dir/", End{Path: "/dir/", Exists: true, IsDir: true}, false},
		{"/link", End{Path: "/dir", Exists: true, IsDir: true}, false},
		{"/filelink", End{Path: "/file", Exists: true}, false},
		{"/dangling", End{Path: "/new"}, false},
		{"/none", End{Path: "/none"}, false},
		{"/none/", End{Path: "/none/"}, false},
		{"/none/x", End{}, true},
		{"/file/x", End{}, true},
		{"/loop", End{}, true},
	}
	for _, tt := range tests {
		got, err := Destination(d + tt.path)
		if tt.fails != (err != nil) {
			t.Errorf("Destination(%s): %v", tt.path, err)
			continue
		}
		tt.want.Path = d + tt.want.Path
		if !tt.fails && got != tt.want {
			t.Errorf("Destination(%s) = %+v, want %+v", tt.path, got, tt.want)
		}
	}
}

func TestKeepAndBase(t *testing.T) {
	for _, tt := range [][3]string{
		{"/a/b", "/a/b", "b"}, {"/a/b/", "/a/b/", "b"}, {"/a/b/.", "/a/b/.", "."}, {"/a//b/../c/", "/a/c/", "c"},
		{"/", "/", "."}, {"/.", "/", "."},
	} {
		if got := Keep(filepath.Clean(tt[0]), tt[0]); got != tt[1] {
			t.Errorf("Keep(%q) = %q, want %q", tt[0], got, tt[1])
		}
		if got := Base(tt[0]); got != tt[2] {
			t.Errorf("Base(%q) = %q, want %q", tt[0], got, tt[2])
		}
	}
}
