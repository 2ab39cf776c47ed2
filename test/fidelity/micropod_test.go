package fidelity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startMicroPod builds the program and gives it a root of its own, which has
// nothing but the guest kernel.
func startMicroPod(t *testing.T, kernel string) *engine {
	t.Helper()
	bin := os.Getenv("MICROPOD_TEST_BINARY")
	if bin == "" {
		bin = build(t, "micropod", "./cmd/micropod")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	if kernel, err = filepath.Abs(kernel); err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("/tmp", "mp") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{name: "micropod", bin: bin, args: []string{"--root", root}, env: []string{"DOCKER_CONFIG=" + root}}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		ids, err := exec.Command(bin, "--root", root, "ps", "-aq").Output()
		if err != nil {
			t.Errorf("list what is left: %v", err)
		}
		if refs := strings.Fields(string(ids)); len(refs) > 0 {
			out, err := exec.Command(bin, append([]string{"--root", root, "rm", "-f"}, refs...)...).CombinedOutput()
			if err != nil {
				t.Errorf("remove what is left: %v\n%s", err, out)
			}
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	if err := os.Symlink(kernel, filepath.Join(root, "vmlinux")); err != nil {
		t.Fatal(err)
	}
	return e
}

// build makes a static program of this tree.
func build(t *testing.T, name, pkg string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, pkg)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return bin
}
