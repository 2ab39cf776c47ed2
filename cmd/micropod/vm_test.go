package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/micropod/micropod/test/registry"
)

// TestVM runs the scripts that boot real VMs, with the program as a user builds
// it. It needs a guest kernel (MICROPOD_TEST_KERNEL) and an OCI layout with the
// test images (MICROPOD_TEST_IMAGES), as `make test` provides them.
// MICROPOD_TEST_BINARY names a program to test instead of a plain build, and
// MICROPOD_TEST_VMM the VMM that it must choose by itself.
func TestVM(t *testing.T) {
	kernel, images := os.Getenv("MICROPOD_TEST_KERNEL"), os.Getenv("MICROPOD_TEST_IMAGES")
	if kernel == "" || images == "" {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES must name a guest kernel and an OCI layout")
		}
		t.Skip("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES do not name a guest kernel and an OCI layout (make test does)")
	}
	bin := programUnderTest(t)
	t.Cleanup(func() {
		var left []string
		if !eventually(leftLimit, func() bool { left = processesOf(bin); return len(left) == 0 }) {
			t.Errorf("left behind by the whole of the scripts:\n%s", strings.Join(left, "\n"))
		}
	})
	registry := startRegistry(t, images)
	template := templateRoot(t, bin, kernel, registry)
	if want := os.Getenv("MICROPOD_TEST_VMM"); want != "" {
		checkVMM(t, bin, template, registry, want)
	}
	commands := scriptCommands()
	for name, c := range vmCommands() {
		commands[name] = c
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/vm",
		Cmds:                commands,
		RequireUniqueNames:  true,
		ContinueOnError:     false,
		RequireExplicitExec: false,
		Condition:           condition,
		Setup: func(env *testscript.Env) error {
			root, err := newRoot(template)
			if err != nil {
				return err
			}
			env.Defer(func() { endRoot(t, bin, root) })
			env.Setenv("MICROPOD_ROOT", root)
			env.Setenv("REGISTRY", registry)
			env.Setenv("IMAGES", images)
			env.Setenv("BUSYBOX", registry+"/busybox:latest")
			env.Setenv("PATH", filepath.Dir(bin)+":"+env.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
	})
}

// checkVMM makes sure of which VMM the scripts will test.
func checkVMM(t *testing.T, bin, root, registry, want string) {
	t.Helper()
	micropod := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(bin, append([]string{"--root", root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	micropod("run", "--name", "chosen", registry+"/busybox:latest", "true")
	if got := micropod("inspect", "-f", "{{.MicroPod.VMM.Name}}", "chosen"); got != want {
		t.Fatalf("the VMM is %s, not %s", got, want)
	}
	micropod("rm", "chosen")
}

// programUnderTest is what `go build` makes of this package, unless told otherwise.
func programUnderTest(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "micropod")
	if given := os.Getenv("MICROPOD_TEST_BINARY"); given != "" {
		given, err := filepath.Abs(given)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(given, bin); err != nil {
			t.Fatal(err)
		}
		return bin
	}
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build micropod: %v\n%s", err, out)
	}
	return bin
}

// startRegistry serves the images of an OCI layout with a real registry, each as
// NAME:latest, and returns its address.
func startRegistry(t *testing.T, images string) string {
	t.Helper()
	address := serveRegistry(t, "")
	push(t, images, address)
	return address
}

// serveRegistry starts an empty real registry with more lines of configuration.
func serveRegistry(t *testing.T, more string) (address string) {
	t.Helper()
	r, err := registry.Start(context.Background(), t.TempDir(), more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r.Address
}

func push(t *testing.T, images, address string) {
	t.Helper()
	path, err := layout.FromPath(images)
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		tag := m.Annotations["org.opencontainers.image.ref.name"]
		ref, err := name.NewTag(address + "/" + tag + ":latest")
		if err != nil {
			t.Fatal(err)
		}
		if m.MediaType.IsIndex() {
			child, err := index.ImageIndex(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			err = remote.WriteIndex(ref, child)
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, image); err != nil {
			t.Fatal(err)
		}
	}
}

// templateRoot has the busybox image, its disks, the kernel and the initramfs,
// so that each script starts with them.
func templateRoot(t *testing.T, bin, kernel, registry string) string {
	t.Helper()
	root := t.TempDir()
	kernel, err := filepath.Abs(kernel)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kernel, filepath.Join(root, "vmlinux")); err != nil {
		t.Fatal(err)
	}
	short, err := newRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endRoot(t, bin, short) })
	args := []string{"--root", short, "run", "--rm", registry + "/busybox:latest", "true"}
	if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
		t.Fatalf("first run: %v\n%s", err, out)
	}
	return short
}

// newRoot makes a root directory out of a template. Its path is short, because
// it holds sockets.
func newRoot(template string) (string, error) {
	root, err := os.MkdirTemp("/tmp", "mp")
	if err != nil {
		return "", err
	}
	// VMMs lock disks: shared ones would look like locks of another script's VMs.
	for name, link := range map[string]bool{"images": false, "rootfs": false, "kernels": true, "initramfs": true} {
		err := copyTree(filepath.Join(template, name), filepath.Join(root, name), link)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	kernel, err := os.Readlink(filepath.Join(template, "vmlinux"))
	if err != nil {
		return "", err
	}
	return root, os.Symlink(kernel, filepath.Join(root, "vmlinux"))
}

// copyTree copies a directory; with link its files, which nothing writes again,
// become hard links.
func copyTree(from, to string, link bool) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Mkdir(target, info.Mode().Perm())
		case !info.Mode().IsRegular():
			return nil
		case link:
			return os.Link(path, target)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, info.Mode().Perm())
	})
}

// endRoot looks for what is left over, ends what a script left running, looks
// again and removes the root.
func endRoot(t *testing.T, bin, root string) {
	checkRoot(t, bin, root)
	ids, err := exec.Command(bin, "--root", root, "ps", "-aq").Output()
	if err != nil {
		t.Errorf("list what is left in %s: %v", root, err)
	}
	if refs := strings.Fields(string(ids)); len(refs) > 0 {
		args := append([]string{"--root", root, "rm", "-f"}, refs...)
		if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
			t.Errorf("remove what is left in %s: %v\n%s", root, err, out)
		}
	}
	checkRoot(t, bin, root)
	var left []string
	if !eventually(leftLimit, func() bool { left = processesOf(root); return len(left) == 0 }) {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if err := os.RemoveAll(root); err != nil {
		t.Error(err)
	}
}

// leftLimit is for what has been told to end and takes its last step, here or, of
// what all roots of a host share, in another root.
const leftLimit = 2 * time.Minute

// checkRoot demands that the program's own ledger of a root is clean, whatever
// runs there.
func checkRoot(t *testing.T, bin, root string) {
	t.Helper()
	var out []byte
	if !eventually(leftLimit, func() (clean bool) {
		var err error
		out, err = exec.Command(bin, "--root", root, "system", "check").CombinedOutput()
		return err == nil
	}) {
		t.Errorf("system check of %s:\n%s", root, out)
	}
}
