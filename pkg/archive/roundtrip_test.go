package archive

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pack archives one file of a directory.
func pack(t *testing.T, p, as string) *bytes.Buffer {
	t.Helper()
	d, name, err := Open(p)
	must(t, err)
	defer d.Close()
	var b bytes.Buffer
	w := NewWriter(&b)
	must(t, w.Add(d, name, as))
	must(t, w.Close())
	return &b
}

// What is archived and extracted again is the same, times, links and names too.
func TestRoundTrip(t *testing.T) {
	src := tree(t)
	must(t, os.Link(src+"/dir/sub/file", src+"/dir/hard"))
	must(t, os.Chmod(src+"/dir/sub", 0o500))
	must(t, unix.Mkfifo(src+"/dir/fifo", 0o640))
	must(t, os.WriteFile(src+"/dir/\xff\x01 name", nil, 0o600))
	must(t, os.Chtimes(src+"/dir/sub", when, when))
	must(t, os.Chtimes(src+"/dir/sub/file", when, when))
	must(t, os.Symlink(strings.Repeat("long/", 60), src+"/dir/far"))
	defer os.Chmod(src+"/dir/sub", 0o700)
	dst := t.TempDir()
	must(t, extractTo(t, dst, pack(t, src+"/dir", "dir"), Target{From: "dir", To: "copy"}))
	defer os.Chmod(dst+"/copy/sub", 0o700)
	if got, want := list(t, dst+"/copy"), list(t, src+"/dir"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, f := range []string{"/sub", "/sub/file"} {
		st, err := os.Stat(dst + "/copy" + f)
		must(t, err)
		if !st.ModTime().Equal(when) {
			t.Errorf("%s is of %v, not of %v", f, st.ModTime(), when)
		}
	}
	a, _ := os.Stat(dst + "/copy/hard")
	b, _ := os.Stat(dst + "/copy/sub/file")
	if !os.SameFile(a, b) {
		t.Error("the hard link has become a file of its own")
	}
}

func TestTopNames(t *testing.T) {
	d := tree(t)
	for _, tt := range []struct{ path, as, want string }{
		{"/file", "g", "g"},
		{"/link", "l", "l"},
		{"/dir", "e", "e/ e/sub/ e/sub/file"},
		{"/dir/.", ".", "./ ./sub/ ./sub/file"},
		{"/link/", "link", "link/ link/sub/ link/sub/file"},
	} {
		names := tarList(t, pack(t, d+tt.path, tt.as))
		if names != tt.want {
			t.Errorf("%s as %s: %q, want %q", tt.path, tt.as, names, tt.want)
		}
	}
}

// tarList is what GNU tar finds in an archive.
func tarList(t *testing.T, r io.Reader) string {
	t.Helper()
	cmd := exec.Command("tar", "-t")
	cmd.Stdin = r
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// With Merge, what exists takes over what the archive says.
func TestMerge(t *testing.T) {
	dst := t.TempDir()
	must(t, os.Mkdir(dst+"/d", 0o700))
	must(t, os.WriteFile(dst+"/there", []byte("x"), 0o600))
	d := dir("d")
	d.Mode = 0o711
	mine := func(int, int) (int, int) { return os.Getuid(), os.Getgid() }
	must(t, extractTo(t, dst, archiveOf(t, d, hardlink("again", "there")), Target{Merge: true, Owner: mine}))
	st, err := os.Stat(dst + "/d")
	must(t, err)
	if st.Mode().Perm() != 0o711 || !st.ModTime().Equal(when) {
		t.Errorf("d: %v, %v", st.Mode(), st.ModTime())
	}
	a, _ := os.Stat(dst + "/there")
	b, _ := os.Stat(dst + "/again")
	if !os.SameFile(a, b) {
		t.Error("no link")
	}
}

func TestXattrs(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(src+"/f", nil, 0o600))
	if err := unix.Setxattr(src+"/f", "user.note", []byte("a\x00b"), 0); err != nil {
		t.Skipf("no extended attributes here: %v", err)
	}
	for _, want := range []bool{true, false} {
		dst := t.TempDir()
		must(t, extractTo(t, dst, pack(t, src+"/f", "f"), Target{Xattrs: want}))
		v := make([]byte, 8)
		n, err := unix.Getxattr(dst+"/f", "user.note", v)
		if got := err == nil && string(v[:n]) == "a\x00b"; got != want {
			t.Errorf("attribute there: %v, want %v (%v)", got, want, err)
		}
	}
}
