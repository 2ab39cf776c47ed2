package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var when = time.Unix(1_500_000_000, 123456789)

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content, Mode: 0o644, ModTime: when, Size: int64(len(content))}
}

func dir(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: when}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: when}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o777, ModTime: when}
}

// archiveOf makes a tar; the Linkname of a regular file is its content.
func archiveOf(t testing.TB, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// list describes all that is below a directory.
func list(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		content := ""
		switch d.Type() {
		case 0:
			c, _ := os.ReadFile(p)
			content = string(c)
		case fs.ModeSymlink:
			content, _ = os.Readlink(p)
		}
		fmt.Fprintf(&b, "%s %o %d:%d %q\n", strings.TrimPrefix(p, root), st.Mode, st.Uid, st.Gid, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// outside is a directory next to the destination, with a secret in it that no
// archive may read, change or replace.
func outside(t testing.TB) (dst, canary string) {
	t.Helper()
	top := t.TempDir()
	canary, dst = top+"/canary", top+"/dst"
	for _, d := range []string{canary, dst, dst + "/own"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{canary + "/secret", dst + "/own/private"} {
		if err := os.WriteFile(f, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../canary", dst+"/mylink"); err != nil {
		t.Fatal(err)
	}
	return dst, canary
}

func extractTo(t testing.TB, dir string, b *bytes.Buffer, target Target) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	target.Root = root
	return Extract(b, target)
}

// Each archive is one that a guest could send to a copy out of it (CVE-2018-15664,
// CVE-2019-14271, CVE-2019-10152 and their like).
func TestHostileArchives(t *testing.T) {
	device := tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o666, Devmajor: 8, ModTime: when}
	owner := file("f", "x")
	owner.Uid = -1
	tests := map[string]struct {
		entries []tar.Header
		from    string
		ok      bool // harmless after all
	}{
		"climbs":                    {entries: []tar.Header{file("../canary/secret", "evil")}},
		"climbs inside":             {entries: []tar.Header{file("a/../../canary/secret", "evil")}},
		"absolute":                  {entries: []tar.Header{file("/../canary/secret", "evil")}},
		"through its link":          {entries: []tar.Header{symlink("l", "../canary"), file("l/secret", "evil")}},
		"through absolute link":     {entries: []tar.Header{symlink("l", "/"), file("l/tmp/x-evil", "evil")}},
		"through link to link":      {entries: []tar.Header{symlink("l", "m"), symlink("m", "../canary"), file("l/secret", "evil")}},
		"through the user's link":   {entries: []tar.Header{file("mylink/secret", "evil")}},
		"directory over link":       {entries: []tar.Header{symlink("l", "../canary"), dir("l")}},
		"directory mode over link":  {entries: []tar.Header{dir("mylink")}},
		"new directories over link": {entries: []tar.Header{file("mylink/a/b/c", "evil")}},
		"file over its own link":    {entries: []tar.Header{symlink("l", "../canary/secret"), file("l", "fine")}, ok: true},
		"hard link out":             {entries: []tar.Header{hardlink("h", "../canary/secret"), file("h", "evil")}},
		"hard link through link":    {entries: []tar.Header{symlink("l", "../canary"), hardlink("h", "l/secret")}},
		"hard link to a link":       {entries: []tar.Header{symlink("l", "../canary/secret"), hardlink("h", "l")}},
		"hard link to user's file":  {entries: []tar.Header{hardlink("h", "own/private")}},
		"device":                    {entries: []tar.Header{device}},
		"negative owner":            {entries: []tar.Header{owner}},
		"not what was asked for":    {entries: []tar.Header{file("own/private", "evil")}, from: "x"},
		"prefix of it only":         {entries: []tar.Header{file("xy", "evil")}, from: "x"},
		"file over directory":       {entries: []tar.Header{file("own", "evil")}},
		"link over directory":       {entries: []tar.Header{symlink("own", "/etc")}},
		"long name":                 {entries: []tar.Header{file(strings.Repeat("a/", 4096)+"f", "evil")}},
		"user's directory":          {entries: []tar.Header{{Typeflag: tar.TypeDir, Name: "own", Mode: 0o777, ModTime: when}}, ok: true},
		"top":                       {entries: []tar.Header{{Typeflag: tar.TypeDir, Name: "./", Mode: 0o777, ModTime: when}}, ok: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dst, canary := outside(t)
			before := list(t, canary) + list(t, dst+"/own")
			top, err := os.Stat(dst)
			must(t, err)
			err = extractTo(t, dst, archiveOf(t, tt.entries...), Target{From: tt.from, To: "x"})
			if tt.from == "" {
				dst2, canary2 := outside(t)
				err = extractTo(t, dst2, archiveOf(t, tt.entries...), Target{})
				dst, canary = dst2, canary2
			}
			if tt.ok != (err == nil) {
				t.Errorf("error: %v", err)
			}
			if after := list(t, canary) + list(t, dst+"/own"); after != before {
				t.Errorf("changed:\n%s\nbefore:\n%s", after, before)
			}
			if st, err := os.Stat(dst); err != nil || st.Mode() != top.Mode() {
				t.Errorf("the destination is %v, was %v (%v)", st.Mode(), top.Mode(), err)
			}
			if matches, _ := filepath.Glob("/tmp/x-evil"); len(matches) > 0 {
				t.Errorf("written: %v", matches)
			}
		})
	}
}

// A few bytes of a sparse file can stand for one that fills the disk.
func TestSparse(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(src+"/zeros", nil, 0o600))
	must(t, os.Truncate(src+"/zeros", 1<<40))
	for _, format := range []string{"gnu", "pax"} {
		out, err := exec.Command("tar", "-C", src, "-S", "--format="+format, "-c", "zeros").Output()
		must(t, err)
		dst, _ := outside(t)
		if err := extractTo(t, dst, bytes.NewBuffer(out), Target{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// Set-id bits were meant for the owner that the file does not keep.
func TestSetIDBits(t *testing.T) {
	h := file("su", "#!")
	h.Mode = 0o6755
	for _, keep := range []bool{false, true} {
		dst, _ := outside(t)
		target := Target{}
		if keep {
			target.Owner = func(int, int) (int, int) { return os.Getuid(), os.Getgid() }
		}
		must(t, extractTo(t, dst, archiveOf(t, h), target))
		st, err := os.Stat(dst + "/su")
		must(t, err)
		if got := st.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0; got != keep || st.Mode().Perm() != 0o755 {
			t.Errorf("owner kept: %v, mode %v", keep, st.Mode())
		}
	}
}

func TestExtractErrors(t *testing.T) {
	whole := archiveOf(t, file("f", strings.Repeat("x", 5000))).Bytes()
	for _, n := range []int{1, 511, 530, 3000, 5600} {
		dst, _ := outside(t)
		if err := extractTo(t, dst, bytes.NewBuffer(whole[:n]), Target{}); err == nil {
			t.Errorf("cut at %d of %d: no error", n, len(whole))
		}
	}
	dst, _ := outside(t)
	unknown := tar.Header{Typeflag: 'Z', Name: "z", ModTime: when}
	if err := extractTo(t, dst, archiveOf(t, unknown), Target{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown type: %v", err)
	}
}

// FuzzExtract has one demand: whatever the archive is, what is beside the
// destination stays as it was.
func FuzzExtract(f *testing.F) {
	f.Add(archiveOf(f, file("../canary/secret", "evil"), symlink("l", "../canary"), file("l/secret", "x")).Bytes(), false)
	f.Add(archiveOf(f, dir("d"), file("d/f", "x"), hardlink("h", "d/f"), symlink("s", "/")).Bytes(), true)
	f.Fuzz(func(t *testing.T, b []byte, merge bool) {
		dst, canary := outside(t)
		before := list(t, canary)
		_ = extractTo(t, dst, bytes.NewBuffer(b), Target{Merge: merge})
		if after := list(t, canary); after != before {
			t.Fatalf("changed:\n%s\nbefore:\n%s", after, before)
		}
	})
}
