package firecracker

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const downloadScript = "../../scripts/download-firecracker.sh"

// release makes an archive as Firecracker publishes it, with programs that only
// tell a version, and a file that must not be taken out of it.
func release(t *testing.T, version, says string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	dir := "release-v" + version + "-x86_64/"
	for name, text := range map[string]string{
		dir + "firecracker-v" + version + "-x86_64": "#!/bin/sh\necho 'Firecracker v" + says + "'\n",
		dir + "jailer-v" + version + "-x86_64":      "#!/bin/sh\necho 'Jailer v" + says + "'\n",
		"../../evil":                                "x",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// download runs the script against a server that has the given files.
func download(t *testing.T, files map[string][]byte, args ...string) (out string, err error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	defer server.Close()
	cmd := exec.Command("sh", append([]string{downloadScript}, args...)...)
	cmd.Env = append(os.Environ(), "MICROPOD_FIRECRACKER_URL="+server.URL, "TMPDIR="+t.TempDir())
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func TestDownloadScript(t *testing.T) {
	for _, tool := range []string{"curl", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	const at = "/v1.16.1/firecracker-v1.16.1-x86_64.tgz"
	good := release(t, "1.16.1", "1.16.1")
	sum := func(b []byte) []byte {
		return fmt.Appendf(nil, "%x  firecracker-v1.16.1-x86_64.tgz\n", sha256.Sum256(b))
	}
	other := release(t, "1.16.1", "1.15.0")
	hex := fmt.Sprintf("%x", sha256.Sum256(good))
	local := filepath.Join(t.TempDir(), "fc.tgz")
	writeFile(t, local, string(good))
	for name, tt := range map[string]struct {
		files map[string][]byte
		args  []string
		want  string
		ok    bool
	}{
		"default":          {map[string][]byte{at: good, at + ".sha256.txt": sum(good)}, nil, "installed firecracker and jailer 1.16.1", true},
		"pinned":           {map[string][]byte{at: good, at + ".sha256.txt": sum(good)}, []string{"--version=v1.16.1", "--sha256", hex}, "is not on your PATH", true},
		"local":            {nil, []string{"--file", local, "--sha256", hex}, "installed", true},
		"local, no sum":    {nil, []string{"--file", local}, "no checksum for", false},
		"damaged":          {map[string][]byte{at: good[1:], at + ".sha256.txt": sum(good)}, nil, "is damaged", false},
		"other pin":        {map[string][]byte{at: good, at + ".sha256.txt": sum(good)}, []string{"--sha256", strings.Repeat("0", 64)}, "not 0000", false},
		"no checksum file": {map[string][]byte{at: good}, nil, "cannot download", false},
		"empty checksum":   {map[string][]byte{at: good, at + ".sha256.txt": nil}, nil, "holds no checksum", false},
		"no such release":  {nil, []string{"--version", "1.99.0"}, "/v1.99.0/firecracker-v1.99.0-x86_64.tgz.sha256.txt", false},
		"other version":    {map[string][]byte{at: other, at + ".sha256.txt": sum(other)}, nil, "does not run as version 1.16.1: Firecracker v1.15.0", false},
		"bad version":      {nil, []string{"--version", "../../x"}, "not a version", false},
		"bad flag":         {nil, []string{"--no-check"}, "unknown argument", false},
		"bad sum":          {nil, []string{"--sha256", "abc"}, "not a checksum", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a b")
			out, err := download(t, tt.files, append(tt.args, "--dir", dir)...)
			if (err == nil) != tt.ok || !strings.Contains(out, tt.want) {
				t.Errorf("%v, want ok %v and %q in:\n%s", err, tt.ok, tt.want, out)
			}
			entries, _ := os.ReadDir(dir)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if got, want := strings.Join(names, " "), map[bool]string{true: "firecracker jailer", false: ""}[tt.ok]; got != want {
				t.Errorf("installed %q, want %q", got, want)
			}
		})
	}
}
