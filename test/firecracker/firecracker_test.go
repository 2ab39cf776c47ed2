// Package firecracker holds no code, only the tests that need a real
// Firecracker on a real KVM: the contract of package vmm, and the scripts that
// boot VMs. They are compiled here and run in package kvmhost's machine, where
// this one has no usable KVM of its own.
package firecracker

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/micropod/micropod/test/kvmhost"
	"github.com/micropod/micropod/test/kvmhost/inside"
)

func TestMain(m *testing.M) {
	inside.Main()
	code := m.Run()
	// Last, as all that a host says of itself is long.
	for _, line := range failures {
		fmt.Println(line)
	}
	os.Exit(code)
}

// failures are the short words of what failed in a host. Its runs follow each
// other.
var failures []string

// nobody has no home, no files, and no group but that of /dev/kvm.
var nobody = &kvmhost.User{UID: 65534, GID: 65534}

// anyVMM are the scripts to which the VMM makes no difference. They run on QEMU,
// where there is more time.
const anyVMM = "^TestVM$/^(commit|default|diff|errors|events|images|logdriver|python|rename|templates|top|twenty|update)$"

// TestFirecracker boots one host for all.
func TestFirecracker(t *testing.T) {
	b := prepare(t)
	host, err := kvmhost.Start(t.Context(), kvmhost.Options{Show: []string{b.dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && host.Emulated {
			t.Logf("the host's console ends with:\n%s", host.Console())
		}
		host.Close()
	})
	// Root has a jail for each VM, others have none.
	user := nobody
	if !host.Emulated && os.Getuid() != 0 {
		user = nil // this one is without privilege
	} else {
		t.Run("contract in a jail", func(t *testing.T) {
			b.run(t, host, nil, "firecracker.test", "TestJail.*")
		})
		t.Run("devices without a jail", func(t *testing.T) {
			b.run(t, host, nil, "firecracker.test", "TestContract/^(network|device)$")
		})
		t.Run("scripts", func(t *testing.T) {
			b.run(t, host, nil, "cmd.test", "TestVM")
		})
		t.Run("fail points", func(t *testing.T) {
			b.run(t, host, nil, "cmd.test", "TestFirecrackerFailpoints")
		})
		t.Run("benchmark", func(t *testing.T) { b.bench(t, host) })
	}
	t.Run("contract", func(t *testing.T) {
		b.run(t, host, user, "firecracker.test", "TestContract")
	})
	t.Run("unprivileged scripts", func(t *testing.T) {
		b.run(t, host, user, "cmd.test", "TestVM/^(run|stdin|rm|network|peers|connect|share)$")
	})
}

// bundle is a directory that everybody may read, with all that the tests need.
type bundle struct{ dir string }

func prepare(t *testing.T) bundle {
	t.Helper()
	dir, err := os.MkdirTemp("", "firecracker-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := bundle{dir}
	top := filepath.Join("..", "..")
	b.build(t, "test", "-c", "-o", filepath.Join(dir, "firecracker.test"), "./pkg/firecracker")
	b.build(t, "test", "-c", "-o", filepath.Join(dir, "cmd.test"), "./cmd/micropod")
	b.build(t, "build", "-tags", "embedagent failpoint", "-o", filepath.Join(dir, "failpoints"), "./cmd/micropod")
	b.build(t, "build", "-o", filepath.Join(dir, "bench"), "./test/bench")
	b.build(t, "build", "-o", filepath.Join(dir, "guest"), "./pkg/vmm/vmmtest/guest")
	b.copy(t, "micropod", filepath.Join(top, "micropod"))
	b.copy(t, "testdata", filepath.Join(top, "cmd", "micropod", "testdata"))
	b.copy(t, "kernel", filepath.Dir(setting(t, "MICROPOD_TEST_KERNEL")))
	b.copy(t, "images", setting(t, "MICROPOD_TEST_IMAGES"))
	b.command(t, "mkdir", filepath.Join(dir, "bin"))
	for _, name := range []string{"firecracker", "jailer"} {
		b.copy(t, filepath.Join("bin", name), filepath.Join(firecracker(t), name))
	}
	b.command(t, "chmod", "-R", "a+rX", dir)
	return b
}

// setting is an environment variable of scripts/test-setup.sh.
func setting(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set (make test-firecracker does)", name)
	}
	return value
}

// firecracker is the folder of the programs under test.
func firecracker(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("MICROPOD_TEST_FIRECRACKER"); dir != "" {
		return dir
	}
	path, err := exec.LookPath("firecracker")
	if err != nil {
		t.Fatalf("%v (run scripts/test-setup.sh)", err)
	}
	return filepath.Dir(path)
}

func (b bundle) build(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (b bundle) copy(t *testing.T, name, from string) {
	t.Helper()
	b.command(t, "cp", "-RH", from, filepath.Join(b.dir, name))
}

func (b bundle) command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// run runs some tests of a compiled test program in the host. They count only
// if all of them ran.
func (b bundle) run(t *testing.T, host *kvmhost.Host, user *kvmhost.User, program, tests string) {
	t.Helper()
	home := b.home(t, host, user)
	r := &results{show: t.Output()}
	code, err := host.Run(t.Context(), kvmhost.Command{
		Args: []string{filepath.Join(b.dir, program), "-test.run=" + anchored(tests), "-test.skip=" + anyVMM, "-test.v", "-test.timeout=60m"},
		Dir:  b.dir, User: user, Stdout: r, Stderr: r,
		Env: []string{
			"PATH=" + filepath.Join(b.dir, "bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=" + home, "TMPDIR=" + home,
			"MICROPOD_TEST_REQUIRE=1", "MICROPOD_TEST_KVM=1", "MICROPOD_TEST_VMM=firecracker",
			"MICROPOD_TEST_FIRECRACKER=" + filepath.Join(b.dir, "bin"),
			"MICROPOD_TEST_GUEST=" + filepath.Join(b.dir, "guest"),
			"MICROPOD_TEST_BINARY=" + filepath.Join(b.dir, "micropod"),
			"MICROPOD_TEST_FAILPOINTS=" + filepath.Join(b.dir, "failpoints"),
			"MICROPOD_TEST_KERNEL=" + filepath.Join(b.dir, "kernel", "vmlinux"),
			"MICROPOD_TEST_IMAGES=" + filepath.Join(b.dir, "images"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	failures = append(failures, r.failed...)
	if problem := r.judge(code); problem != "" {
		t.Errorf("%s; all of its output:\n%s", problem, r.all.String())
	}
}

// bench goes through the benchmark's part that needs a KVM, once: what comes out
// are numbers, which ones is no test's business.
func (b bundle) bench(t *testing.T, host *kvmhost.Host) {
	t.Helper()
	var out bytes.Buffer
	code, err := host.Run(t.Context(), kvmhost.Command{
		Args: []string{filepath.Join(b.dir, "bench"), "-here", "-only", "kvm", "-quick", "-rounds", "1",
			"-micropod", filepath.Join(b.dir, "micropod"), "-kernel", filepath.Join(b.dir, "kernel", "vmlinux"),
			"-layout", filepath.Join(b.dir, "images"), "-images", filepath.Join(b.dir, "images"), "-dir", b.home(t, host, nil)},
		Env:    []string{"MICROPOD_TEST_FIRECRACKER=" + filepath.Join(b.dir, "bin")},
		Stdout: &out, Stderr: &out,
	})
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v:\n%s", code, err, out.String())
	}
	for _, line := range []string{
		`third run / first run:`, `micropod run --rm / script with Firecracker and a trivial init:`,
		`micropod --templates run --rm / script with Firecracker and a trivial init:`,
		`micropod run --rm: all others / VMM:`, `the last VM / the first VM:`, `bridge / bare TAP`, `user mode / bridge`, `kernel`, `exec`,
	} {
		m := regexp.MustCompile(`(?m)^` + line + ` +([0-9.]+).*$`).FindStringSubmatch(out.String())
		if m == nil || strings.Trim(m[1], "0.") == "" {
			t.Errorf("no number for %q in:\n%s", line, out.String())
		}
	}
}

// home makes a directory in the host that user may write.
func (b bundle) home(t *testing.T, host *kvmhost.Host, user *kvmhost.User) string {
	t.Helper()
	var out strings.Builder
	code, err := host.Run(t.Context(), kvmhost.Command{
		// Open to all, as other temporary directories are: what a jail keeps from
		// other users it must keep by itself.
		Args: []string{"sh", "-c", `d=$(mktemp -d /tmp/h-XXXXXX) && chmod 755 "$d" && echo "$d"`}, User: user, Stdout: &out, Stderr: &out,
	})
	if err != nil || code != 0 {
		t.Fatalf("mktemp: %d, %v: %s", code, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

// anchored makes of A/B, or A, the pattern that matches these tests only.
func anchored(tests string) string {
	top, rest, sub := strings.Cut(tests, "/")
	if sub {
		return "^" + top + "$/" + rest
	}
	return "^" + top + "$"
}
