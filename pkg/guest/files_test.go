package guest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

func TestCheckFiles(t *testing.T) {
	tests := []struct {
		r  *api.FilesRequest
		ok bool
	}{
		{nil, false},
		{&api.FilesRequest{}, false},
		{&api.FilesRequest{Op: "format", Path: "/"}, false},
		{&api.FilesRequest{Op: api.FileStat, Path: "/etc"}, true},
		{&api.FilesRequest{Op: api.FileArchive, Path: "/etc/../x/.", Container: "c"}, true},
		{&api.FilesRequest{Op: api.FileStat}, false},
		{&api.FilesRequest{Op: api.FileStat, Path: "etc"}, false},
		{&api.FilesRequest{Op: api.FileExtract, Path: "/a\x00b"}, false},
		{&api.FilesRequest{Op: api.FileExtract, Path: "/" + strings.Repeat("x", api.MaxPath)}, false},
		{&api.FilesRequest{Op: api.FileExport}, true},
		{&api.FilesRequest{Op: api.FileExport, Path: "/etc"}, false},
		{&api.FilesRequest{Op: api.FileLayer, Container: "c"}, false},
		{&api.FilesRequest{Op: api.FileChanges}, true},
	}
	for _, tt := range tests {
		if err := checkFiles(tt.r); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.r, err)
		}
	}
}

// grow makes files below a directory: a slash at the end is a directory, "!" a
// whiteout, "@" a link; "^" marks a directory as opaque.
func grow(t *testing.T, top string, names ...string) {
	t.Helper()
	for _, name := range names {
		p := filepath.Join(top, strings.Trim(name, "!@^"))
		var err error
		switch name[len(name)-1] {
		case '/':
			err = os.MkdirAll(p, 0o755)
		case '!':
			err = unix.Mknod(p, unix.S_IFCHR, 0)
		case '@':
			err = os.Symlink("/etc", p)
		case '^':
			if err = os.MkdirAll(p, 0o755); err == nil {
				err = unix.Setxattr(p, "trusted.overlay.opaque", []byte("y"), 0)
			}
		default:
			err = os.WriteFile(p, nil, 0o644)
		}
		if err == unix.EPERM || err == unix.ENOTSUP {
			t.Skipf("make %s: %v", name, err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompare(t *testing.T) {
	tests := map[string]struct {
		lower, upper []string
		want         string
	}{
		"nothing":                  {[]string{"a/", "a/f"}, nil, ""},
		"a directory alone":        {[]string{"a/", "a/f"}, []string{"a/"}, ""},
		"added":                    {[]string{"a/"}, []string{"a/", "a/f", "b/", "b/g"}, "C/a A/a/f A/b A/b/g"},
		"changed":                  {[]string{"a/", "a/b/", "a/b/f"}, []string{"a/", "a/b/", "a/b/f"}, "C/a C/a/b C/a/b/f"},
		"deleted":                  {[]string{"a/", "a/f"}, []string{"a/", "a/f!"}, "C/a D/a/f"},
		"came and went":            {[]string{"a/"}, []string{"a/", "a/f!"}, ""},
		"order":                    {[]string{"f", "h"}, []string{"z", "h!", "f", "a/"}, "A/a C/f D/h A/z"},
		"made again":               {[]string{"d/", "d/f", "d/g", "d/s/", "d/s/h"}, []string{"d^", "d/g", "d/s/"}, "C/d D/d/f C/d/g C/d/s D/d/s/h"},
		"file to directory":        {[]string{"f"}, []string{"f/", "f/g"}, "C/f A/f/g"},
		"directory to file":        {[]string{"d/", "d/g"}, []string{"d"}, "C/d"},
		"link to directory":        {[]string{"l@"}, []string{"l/", "l/passwd"}, "C/l A/l/passwd"},
		"a link is not gone along": {[]string{"d/", "d/f"}, []string{"d@"}, "C/d"},
		"made by the start":        {nil, []string{"etc/", "proc/", "sys/", "dev/", "etc/mtab@", "etc/hosts", "etc/hostname", "etc/resolv.conf"}, ""},
		"beside it":                {nil, []string{"etc/", "etc/hosts", "etc/x", "tmp/", "tmp/hosts"}, "C/etc A/etc/x A/tmp A/tmp/hosts"},
		"deleted all the same":     {[]string{"etc/", "etc/mtab"}, []string{"etc/", "etc/mtab!"}, "C/etc D/etc/mtab"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			lower, upper := t.TempDir(), t.TempDir()
			grow(t, lower, tt.lower...)
			grow(t, upper, tt.upper...)
			var got []string
			err := compare(upper, lower, func(c api.Change, dir *os.File, name string) error {
				if filepath.Base(c.Path()) != name {
					t.Errorf("%s is called %s", c, name)
				}
				_, err := os.Lstat(upper + c.Path())
				if there := err == nil; there != (c.Kind() != 'D') && !slices.Contains(tt.upper, c.Path()[1:]+"!") {
					t.Errorf("%s: there %v", c, there)
				}
				got = append(got, string(c))
				return c.Check()
			})
			if s := strings.Join(got, " "); err != nil || s != tt.want {
				t.Errorf("got %q, %v; want %q", s, err, tt.want)
			}
		})
	}
	lower, upper := t.TempDir(), t.TempDir()
	grow(t, lower, "d/")
	grow(t, upper, "d/")
	if err := os.Chmod(upper+"/d", 0o700); err != nil {
		t.Fatal(err)
	}
	var got api.Change
	if err := compare(upper, lower, func(c api.Change, _ *os.File, _ string) error { got = c; return nil }); err != nil || got != "C/d" {
		t.Errorf("another mode: %q, %v", got, err)
	}
}

func TestStatFile(t *testing.T) {
	dir := t.TempDir()
	grow(t, dir, "d/", "f", "l@")
	for path, want := range map[string]uint32{"/d": unix.S_IFDIR, "/f": unix.S_IFREG, "/l": unix.S_IFLNK, "/l/": unix.S_IFDIR, "/l/.": unix.S_IFDIR} {
		info, err := statFile(dir + path)
		if err != nil || info.Mode&unix.S_IFMT != want || (info.LinkTarget == "/etc") != (want == unix.S_IFLNK) {
			t.Errorf("%s: %+v, %v", path, info, err)
		}
	}
	for _, p := range []string{dir + "/none", dir + "/f/", "/proc/1/status", "/sys/kernel"} {
		if _, err := statFile(p); fileError(err).Code != api.CodeNotFound {
			t.Errorf("%s: %v", p, err)
		}
	}
}
