package rootfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
)

func initFile(name string, mode fs.FileMode, body string) InitEntry {
	return InitEntry{Name: name, Mode: mode, Size: int64(len(body)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(body)), nil
	}}
}

// The cpio of GNU or busybox reads what is written, twice the same.
func TestInitramfs(t *testing.T) {
	entries := []InitEntry{
		initFile("init", 0o755, "#!agent"),
		initFile("modules/00-erofs.ko", 0o644, strings.Repeat("k", 5001)),
		initFile("modules/01-x.ko", 0o600, ""),
		{Name: "proc", Mode: fs.ModeDir | 0o555},
		{Name: "modules", Mode: fs.ModeDir | 0o700}, // there already
		initFile("a/b/link", fs.ModeSymlink|0o777, "../../init"),
	}
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := WriteInitramfs(w, entries); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two writes differ")
	}
	dir := t.TempDir()
	cmd := exec.Command(tool(t, "busybox"), "cpio", "-i", "-m")
	if cpio, err := exec.LookPath("cpio"); err == nil {
		cmd = exec.Command(cpio, "-i", "--quiet", "-m", "--no-preserve-owner")
	}
	cmd.Dir, cmd.Stdin = dir, &second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	all := listHost(t, dir)
	want := map[string]string{
		"init": "file #!agent", "modules": "dir", "modules/01-x.ko": "file  600", "proc": "dir 555",
		"a": "dir", "a/b": "dir", "a/b/link": "-> ../../init",
	}
	for name, brief := range want {
		f := all[name]
		f.uid, f.gid = 0, 0 // of the user that runs the test
		if f.brief() != brief {
			t.Errorf("%s: %s, want %s", name, f.brief(), brief)
		}
	}
	if f := all["modules/00-erofs.ko"]; f.size != 5001 || f.sec != 0 {
		t.Errorf("module: %v", f)
	}
	if len(all) != len(want)+2 {
		t.Errorf("%d files", len(all))
	}
}

func TestInitramfsRefuses(t *testing.T) {
	short, long := initFile("f", 0o644, "x"), initFile("f", 0o644, "xyz")
	short.Size, long.Size = 2, 2
	boom := errors.New("boom")
	for name, entries := range map[string][]InitEntry{
		"root":            {initFile(".", 0o644, "")},
		"parent":          {initFile("../x", 0o644, "")},
		"absolute":        {initFile("/x", 0o644, "")},
		"NUL":             {initFile("a\x00b", 0o644, "")},
		"twice":           {initFile("x", 0o644, ""), initFile("./x", 0o644, "")},
		"device":          {{Name: "x", Mode: fs.ModeDevice}},
		"fewer bytes":     {short},
		"more bytes":      {long},
		"over 4 GiB":      {{Name: "x", Size: 1 << 32, Open: short.Open}},
		"open that fails": {{Name: "x", Size: 1, Open: func() (io.ReadCloser, error) { return nil, boom }}},
	} {
		if err := WriteInitramfs(io.Discard, entries); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The archive of nothing ends on a whole word and has
// its trailer.
func TestInitramfsEnds(t *testing.T) {
	var b bytes.Buffer
	if err := WriteInitramfs(&b, nil); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 || !strings.Contains(b.String(), "TRAILER!!!") || !strings.HasPrefix(b.String(), "070701") {
		t.Errorf("%q", b.String())
	}
}
