package guest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// stageRoot is an image on the host, made of busybox and of links that lead to
// a canary tree outside. Only root can make a container of it.
func stageRoot(t *testing.T) (root, canary string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes real namespaces")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("busybox is not installed")
		}
		t.Skip("busybox is not installed")
	}
	canary, _ = tree(t, map[string]string{"file": "canary\n"})
	root, _ = tree(t, map[string]string{
		"etc/passwd": passwd, "etc/group": group, "etc/hosts": "->" + canary + "/file", "etc/resolv.conf": "->" + canary + "/file",
		"dev": "->" + canary, "proc": "->" + canary, "sys": "->" + canary, "work": "->" + canary + "/made", "in": "->" + canary,
	})
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/sh"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ls", "cat", "pwd", "readlink", "touch"} {
		if err := os.Symlink("sh", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root, canary
}

func stageRequest(script string) api.StartRequest {
	return api.StartRequest{ID: "c1", Hostname: "box", Spec: &api.Spec{
		Process: &api.SpecProcess{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &api.SpecLinux{},
	}}
}

// inits are the values of Init to test. The second stage of --init is this
// program executed inside the image, which a dynamic one cannot be: the tests
// cover it without cgo, so not under the race detector.
func inits() []bool {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "CGO_ENABLED" && s.Value == "0" {
				return []bool{false, true}
			}
		}
	}
	return []bool{false}
}

// runStage makes a real container in root, on this host.
func runStage(t *testing.T, r *reaper, root string, req api.StartRequest) (out string, code int, err error) {
	t.Helper()
	etc := t.TempDir()
	files, err := writeEtcFiles(etc, req)
	if err != nil {
		t.Fatal(err)
	}
	noBundle, err := trust(etc, root, req, files)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLauncher(req)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	_, exited, err := r.start("/proc/self/exe", []string{stageName, "container"}, l.attr(nil))
	if err != nil {
		t.Fatal(err)
	}
	l.closeChild()
	if _, err := l.handshake(stageConfig{req, stagePlace{Root: root, Files: files, NoBundle: noBundle}}, nil); err != nil {
		<-exited
		return "", 0, err
	}
	b, err := io.ReadAll(l.stdout)
	if err != nil {
		t.Fatal(err)
	}
	errs, err := io.ReadAll(l.stderr)
	if err != nil {
		t.Fatal(err)
	}
	code, _ = exitCode(<-exited)
	return string(b) + string(errs), code, nil
}

// Whatever an image's links say, nothing outside of it is read, made or changed.
func TestStageStaysInside(t *testing.T) {
	root, canary := stageRoot(t)
	r := newReaper(false)
	for _, init := range inits() {
		req := stageRequest("cat /etc/hostname; ls /; pwd; echo x > /etc/hosts; exit 3")
		req.Init = init
		req.Spec.Process.Cwd = "/work"
		out, code, err := runStage(t, r, root, req)
		want := "box\nbin\ndev\netc\nin\nproc\nsys\n" // and what /work made
		if err != nil || code != 3 || !strings.HasPrefix(out, want) || !strings.Contains(out, canary+"/made\n") {
			t.Errorf("init %v: %q, code %d, %v", init, out, code, err)
		}
	}
	req := stageRequest("echo")
	req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/in/side", Type: "tmpfs", Source: "tmpfs"})
	if _, _, err := runStage(t, r, root, req); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(canary)
	if err != nil || len(entries) != 1 {
		t.Errorf("the tree outside has %d entries, %v", len(entries), err)
	}
	if b, err := os.ReadFile(filepath.Join(canary, "file")); string(b) != "canary\n" {
		t.Errorf("the file outside holds %q, %v", b, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), root) {
		t.Errorf("a mount is left on the host: %v", err)
	}
}

// A descriptor that leaks into the stage reaches neither the command nor, as a
// working directory, anything outside (CVE-2024-21626).
func TestStageLeakedDescriptor(t *testing.T) {
	root, _ := stageRoot(t)
	const leaked = 50
	fd, err := unix.Open("/etc", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, leaked, 0); err != nil { // without close-on-exec
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	r := newReaper(false)
	for _, init := range inits() {
		req := stageRequest("")
		req.Init = init
		req.Spec.Process.Args = []string{"ls", "/proc/self/fd"}
		if out, code, err := runStage(t, r, root, req); err != nil || out != "0\n1\n2\n3\n" || code != 0 { // 3 is ls itself
			t.Errorf("init %v: %q, code %d, %v", init, out, code, err)
		}
		for _, cwd := range []string{"/proc/self/fd/50", "/proc/1/fd/50", "/proc/self/fd/50/../tmp"} {
			req := stageRequest("pwd")
			req.Init = init
			req.Spec.Process.Cwd = cwd
			out, _, err := runStage(t, r, root, req)
			var e *api.Error
			if !errors.As(err, &e) || e.Phase != "cwd" {
				t.Errorf("working directory %s with init %v: %q, %v", cwd, init, out, err)
			}
		}
	}
}

// Every failure of a stage says where it happened, and leaves nothing behind.
func TestStageFailures(t *testing.T) {
	root, _ := stageRoot(t)
	r := newReaper(false)
	tests := map[string]struct {
		spoil func(*api.StartRequest)
		phase string
		code  api.Code
	}{
		"user":     {func(r *api.StartRequest) { r.User = "bob" }, "user", api.CodeInvalid},
		"mount":    {func(r *api.StartRequest) { r.Spec.Mounts[0].Type = "nofs" }, "mount", api.CodeInvalid},
		"sysctl":   {func(r *api.StartRequest) { r.Spec.Linux.Sysctl = map[string]string{"no.such": "1"} }, "sysctl", api.CodeInvalid},
		"limit":    {func(r *api.StartRequest) { r.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NO"}} }, "limits", api.CodeInvalid},
		"cwd":      {func(r *api.StartRequest) { r.Spec.Process.Cwd = "/etc/passwd" }, "cwd", api.CodeInvalid},
		"command":  {func(r *api.StartRequest) { r.Spec.Process.Args = []string{"nosuch"} }, "exec", api.CodeNotFound},
		"dir":      {func(r *api.StartRequest) { r.Spec.Process.Args = []string{"/bin"} }, "exec", api.CodeNotExecutable},
		"device":   {func(r *api.StartRequest) { r.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }, "dev", api.CodeInternal},
		"hostname": {func(r *api.StartRequest) { r.Hostname = strings.Repeat("h", 65) }, "hostname", api.CodeInvalid},
	}
	for name, tt := range tests {
		for _, init := range inits() {
			req := stageRequest("echo")
			req.Init = init
			tt.spoil(&req)
			out, _, err := runStage(t, r, root, req)
			var e *api.Error
			if !errors.As(err, &e) || e.Phase != tt.phase || e.Code != tt.code {
				t.Errorf("%s: %q, %v (%+v), want phase %s, code %s", name, out, err, e, tt.phase, tt.code)
			}
		}
	}
}
