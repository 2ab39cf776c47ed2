package rootfs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// file is an entry of a test layer. The zero Typeflag is a regular file.
type file struct {
	tar.Header
	body string
}

func dir(name string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

func reg(name, body string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body: body}
}

func symlink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func link(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// with returns a copy of f after change.
func (f file) with(change func(*tar.Header)) file {
	change(&f.Header)
	return f
}

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if f.body != "" {
			f.Size = int64(len(f.body))
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func diffIDOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "rootfs"), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustAdd(t testing.TB, s *Store, layer []byte) string {
	t.Helper()
	id := diffIDOf(layer)
	if _, err := s.AddLayer(t.Context(), id, bytes.NewReader(layer)); err != nil {
		t.Fatal(err)
	}
	return id
}

func mustImage(t testing.TB, s *Store, f Format, ids ...string) Image {
	t.Helper()
	img, err := s.EnsureImage(t.Context(), ids, f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// tool skips the test when a program is missing, unless the environment
// promises all of them.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if p := filepath.Join(dir, name); isExecutable(p) {
				return p
			}
		}
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is required: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func isExecutable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&0o111 != 0
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// rawHeader returns a tar header block with what archive/tar refuses to write.
func rawHeader(name string, typ byte, size string, link string) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], size)
	copy(b[136:], "00000000000\x00")
	b[156] = typ
	copy(b[157:], link)
	copy(b[257:], "ustar\x0000")
	return checksummed(b)
}

func checksummed(b []byte) []byte {
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func blocks(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
		b = append(b, make([]byte, -len(b)&511)...)
	}
	return b
}

func pax(typ byte, records ...string) []byte {
	var body string
	for i := 0; i < len(records); i += 2 {
		rec := fmt.Sprintf(" %s=%s\n", records[i], records[i+1])
		n := len(rec)
		for n != len(rec)+len(fmt.Sprint(n)) {
			n = len(rec) + len(fmt.Sprint(n))
		}
		body += fmt.Sprint(n) + rec
	}
	return blocks(rawHeader("pax", typ, fmt.Sprintf("%011o\x00", len(body)), ""), []byte(body))
}

var tarEnd = make([]byte, 1024)
