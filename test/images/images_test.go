package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// made is the layout that scripts/test-setup.sh has made with this program.
func made(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("MICROPOD_TEST_IMAGES")
	if dir == "" {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("MICROPOD_TEST_IMAGES is not set (run scripts/test-setup.sh)")
		}
		t.Skip("MICROPOD_TEST_IMAGES is not set")
	}
	return dir
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatalf("%v (run scripts/test-setup.sh)", err)
		}
		t.Skip(err)
	}
	return path
}

func TestReferences(t *testing.T) {
	dir := made(t)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range manifest.Manifests {
		names = append(names, m.Annotations[refName])
	}
	if got, want := strings.Join(names, " "), "busybox nginx python3 config zstd multi"; got != want {
		t.Errorf("references %q, want %q", got, want)
	}
}

// Copying with skopeo reads and checks everything.
func TestSkopeoCopies(t *testing.T) {
	for _, name := range []string{"busybox", "nginx", "python3", "config", "zstd", "multi"} {
		args := []string{"copy", "--quiet", "--all", "oci:" + made(t) + ":" + name, "oci:" + t.TempDir() + ":copy"}
		if out, err := exec.Command(tool(t, "skopeo"), args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// unpack lets umoci, which knows nothing of this program, unpack an image.
func unpack(t *testing.T, name string) string {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "bundle")
	args := []string{"unpack", "--image", made(t) + ":" + name, bundle}
	if os.Getuid() != 0 {
		args = append([]string{args[0], "--rootless"}, args[1:]...)
	}
	if out, err := exec.Command(tool(t, "umoci"), args...).CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v\n%s", err, out)
	}
	return filepath.Join(bundle, "rootfs")
}

func TestProgramsRun(t *testing.T) {
	made(t)
	if os.Getuid() != 0 {
		t.Skip("chroot needs root")
	}
	for _, c := range []struct {
		image string
		cmd   []string
		want  string
	}{
		{"busybox", []string{"sh", "-c", "id -Gn alice; ls -l /bin | wc -l"}, "alice wheel audio\n1\n"},
		{"nginx", []string{"sh", "-c", "mknod /dev/null c 1 3; nginx -t -g 'daemon off; error_log stderr;' 2>&1"}, "syntax is ok"},
		{"python3", []string{"python3", "-c", "import sys, os; print(sum(range(101)), sys.platform)"}, "5050 linux\n"},
		{"config", []string{"sh", "-c", "cat /opt/tree/again /opt/hard/across"}, "upper again\nalone\n"},
	} {
		t.Run(c.image, func(t *testing.T) {
			root := unpack(t, c.image)
			out, err := exec.Command(tool(t, "chroot"), append([]string{root}, c.cmd...)...).CombinedOutput()
			if !strings.Contains(string(out), c.want) {
				t.Errorf("%v\n%s\nwant %q", err, out, c.want)
			}
		})
	}
}

func TestConfigLayers(t *testing.T) {
	root := filepath.Join(unpack(t, "config"), "opt")
	for name, want := range map[string]string{
		"tree/kept": "lower kept\n", "tree/replaced": "upper replaced\n", "tree/dir/b": "lower dir/b\n",
		"tree/dir/c": "upper c\n", "tree/opaque/new": "upper new\n", "tree/becomes-file": "upper becomes-file\n",
		"tree/becomes-dir/inside": "upper inside\n", "hard/two": "one\n", "hard/across": "alone\n", "size/empty": "",
	} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q %v, want %q", name, b, err, want)
		}
	}
	for _, name := range []string{"tree/removed", "tree/gone", "tree/link", "tree/dir/a", "tree/opaque/old", "tree/opaque/sub"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// The same files give the same layer, whatever order a map has.
func TestLayersAreDeterministic(t *testing.T) {
	var first []v1.Layer
	for range 3 {
		ls, err := layers(lowerFiles(), upperFiles(), users())
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = ls
		}
		for i := range ls {
			a, errA := first[i].Digest()
			b, errB := ls[i].Digest()
			if a != b || errA != nil || errB != nil {
				t.Errorf("layer %d: %s and %s", i, a, b)
			}
		}
	}
}

func TestMerged(t *testing.T) {
	for in, want := range map[string]string{
		"./bin/sh": "usr/bin/sh", "./lib": "", "./lib64/ld.so": "usr/lib64/ld.so", "./usr/bin/env": "usr/bin/env",
		"bin/": "", "./": "", "./library/x": "library/x", "./etc/": "etc",
	} {
		if got := merged(in); got != want {
			t.Errorf("merged(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNoiseDoesNotCompress(t *testing.T) {
	if n := noise(1000); len(n) != 1000 || bytes.Count([]byte(n), []byte(n[:17])) != 1 {
		t.Errorf("%q", n[:40])
	}
}
