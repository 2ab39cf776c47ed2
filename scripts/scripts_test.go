// Package scripts holds no code, only tests of the shell scripts in this
// directory.
package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

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

func TestShellcheck(t *testing.T) {
	scripts, err := filepath.Glob("*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	if out, err := exec.Command(tool(t, "shellcheck"), scripts...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// writeFiles makes a tree below dir; what begins with #! becomes executable.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// fakeKernel passes for a bzImage.
var fakeKernel = strings.Repeat("\x00", 514) + "HdrS" + strings.Repeat("x", 100)

// deb makes a package with the real tool.
func deb(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, files)
	writeFiles(t, dir, map[string]string{"DEBIAN/control": "Package: " + name +
		"\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDescription: test\n"})
	file := filepath.Join(t.TempDir(), "a "+name+"_1_amd64.deb")
	if out, err := exec.Command(tool(t, "dpkg-deb"), "--root-owner-group", "-b", dir, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// download runs download-kernel.sh, with the programs of bin, if any, first on PATH.
func download(t *testing.T, bin string, args ...string) (string, error) {
	t.Helper()
	path := os.Getenv("PATH")
	if bin != "" {
		path = bin + ":" + path
	}
	cmd := exec.Command("./download-kernel.sh", args...)
	cmd.Env = append(os.Environ(), "PATH="+path, "MICROPOD_ROOT=", "MICROPOD_FIRECRACKER_CI=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustDownload(t *testing.T, bin string, args ...string) string {
	t.Helper()
	out, err := download(t, bin, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// noLeftovers checks that kernels/ holds the named releases and nothing else.
func noLeftovers(t *testing.T, root string, releases ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "kernels"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), strings.Join(releases, " "); got != want {
		t.Errorf("kernels/ holds %q, want %q", got, want)
	}
}

func TestDownloadFromPackages(t *testing.T) {
	root := filepath.Join(t.TempDir(), "my root")
	image := deb(t, "linux-image", map[string]string{"boot/vmlinuz-6.9-x": fakeKernel, "boot/config-6.9-x": "CONFIG_A=y\n"})
	const modules = "usr/lib/modules/6.9-x/"
	mods := deb(t, "linux-modules", map[string]string{
		modules + "modules.builtin":                             "kernel/fs/ext4/ext4.ko\n",
		modules + "kernel/drivers/block/virtio_blk.ko.zst":      "blk",
		modules + "kernel/drivers/block/nbd.ko.zst":             "nbd",
		modules + "kernel/drivers/char/hw_random/virtio-rng.ko": "rng",
		modules + "kernel/drivers/gpu/drm/amdgpu.ko":            "gpu",
		modules + "kernel/arch/x86/crypto/crc32c-intel.ko":      "crc",
		modules + "kernel/arch/x86/kvm/kvm.ko":                  "kvm",
	})
	mustDownload(t, "", "--root", root, "--source", image, "--source="+mods)

	if link, err := os.Readlink(filepath.Join(root, "vmlinux")); err != nil || link != "kernels/6.9-x/vmlinuz" {
		t.Errorf("vmlinux -> %q %v", link, err)
	}
	if read(t, filepath.Join(root, "vmlinux")) != fakeKernel {
		t.Error("another kernel")
	}
	dir := filepath.Join(root, "kernels/6.9-x")
	read(t, filepath.Join(dir, "config"))
	tree := filepath.Join(dir, "lib/modules/6.9-x")
	for name, want := range map[string]bool{
		"modules.builtin": true, "kernel/drivers/block/virtio_blk.ko.zst": true, "kernel/drivers/block/nbd.ko.zst": true,
		"kernel/drivers/char/hw_random/virtio-rng.ko": true, "kernel/arch/x86/crypto/crc32c-intel.ko": true,
		"kernel/drivers/gpu": false, "kernel/arch/x86/kvm": false, "keep": false,
	} {
		if _, err := os.Stat(filepath.Join(tree, name)); (err == nil) != want {
			t.Errorf("%s kept: %v, want %v", name, err == nil, want)
		}
	}
	for _, name := range []string{"", "kernels", "kernels/6.9-x", "kernels/6.9-x/lib/modules/6.9-x/kernel"} {
		fi, err := os.Stat(filepath.Join(root, name))
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("mode of %q: %v %v", name, fi, err)
		}
	}
	noLeftovers(t, root, "6.9-x")

	newer := deb(t, "linux-image", map[string]string{"boot/vmlinuz-6.9-x": fakeKernel + "newer"})
	if out := mustDownload(t, "", "--root", root, "--source", newer); !strings.Contains(out, "there is a kernel already") {
		t.Errorf("second run: %s", out)
	}
	if read(t, filepath.Join(root, "vmlinux")) != fakeKernel {
		t.Error("replaced without --force")
	}
	mustDownload(t, "", "--root", root, "--source", newer, "--force")
	if read(t, filepath.Join(root, "vmlinux")) != fakeKernel+"newer" {
		t.Error("not replaced with --force")
	}
	noLeftovers(t, root, "6.9-x")
}

// The kernel of the KVM test host keeps what a guest has no use for.
func TestDownloadForKVMHost(t *testing.T) {
	root := t.TempDir()
	const tree = "lib/modules/6.9-x/kernel/"
	image := deb(t, "linux-image", map[string]string{
		"boot/vmlinuz-6.9-x": fakeKernel, tree + "arch/x86/kvm/kvm-amd.ko": "kvm", tree + "virt/lib/irqbypass.ko": "irq",
		tree + "drivers/crypto/ccp/ccp.ko": "ccp", tree + "fs/9p/9p.ko": "9p", tree + "drivers/gpu/drm/amdgpu.ko": "gpu",
	})
	mustDownload(t, "", "--kvm-host", "--root", root, "--source", image)
	dir := filepath.Join(root, "kernels/6.9-x", tree)
	for _, name := range []string{"arch/x86/kvm/kvm-amd.ko", "virt/lib/irqbypass.ko", "drivers/crypto/ccp/ccp.ko", "fs/9p/9p.ko"} {
		read(t, filepath.Join(dir, name))
	}
	if _, err := os.Stat(filepath.Join(dir, "drivers/gpu")); err == nil {
		t.Error("drivers of hardware are kept")
	}
}

// fakeAptCache knows the packages as Ubuntu has them: the modules are in a package
// of their own.
const fakeAptCache = `#!/bin/sh
for last; do :; done
case $last in
linux-image-virtual) printf '%s\n  Depends: linux-image-6.8.0-1-generic\n' $last ;;
linux-image-6.8.0-1-generic) printf '%s\n |Depends: kmod\n  Depends: linux-modules-6.8.0-1-generic\n  Depends: <initrd>\n' $last ;;
*) echo 'E: No packages found' >&2; exit 100 ;;
esac
`

func TestDownloadFromUbuntu(t *testing.T) {
	bin, root := t.TempDir(), t.TempDir()
	image := deb(t, "linux-image", map[string]string{"boot/vmlinuz-6.8.0-1-generic": fakeKernel})
	mods := deb(t, "linux-modules", map[string]string{"lib/modules/6.8.0-1-generic/kernel/fs/overlayfs/overlay.ko.zst": "x"})
	writeFiles(t, bin, map[string]string{
		"apt-cache": fakeAptCache,
		"apt-get": `#!/bin/sh
while [ "$1" != download ]; do shift; done
test "$*" = "download linux-image-6.8.0-1-generic linux-modules-6.8.0-1-generic" || { echo "asked for $*"; exit 1; }
cp '` + image + `' '` + mods + `' .
`,
		"dpkg": "#!/bin/sh\necho amd64\n",
	})
	mustDownload(t, bin, "--root", root, "--source", "ubuntu")
	read(t, filepath.Join(root, "kernels/6.8.0-1-generic/lib/modules/6.8.0-1-generic/kernel/fs/overlayfs/overlay.ko.zst"))
}

func TestDownloadRefuses(t *testing.T) {
	empty := t.TempDir()
	writeFiles(t, empty, map[string]string{
		"apt-cache": "#!/bin/sh\nexit 100\n",
		"apt-get":   "#!/bin/sh\nexit 100\n",
		"id":        "#!/bin/sh\necho 1000\n",
		"dpkg":      "#!/bin/sh\necho amd64\n",
	})
	arm := t.TempDir()
	writeFiles(t, arm, map[string]string{"dpkg": "#!/bin/sh\necho arm64\n", "apt-get": "#!/bin/sh\n", "apt-cache": "#!/bin/sh\n"})
	noKernel := deb(t, "other", map[string]string{"usr/bin/x": "x"})
	noImage := deb(t, "odd", map[string]string{"boot/vmlinuz-1": "MZ" + strings.Repeat("x", 1000)})
	garbage := filepath.Join(t.TempDir(), "x.deb")
	writeFiles(t, filepath.Dir(garbage), map[string]string{"x.deb": "hello"})
	for name, c := range map[string]struct {
		bin  string
		args []string
		says string
	}{
		"no lists":         {empty, []string{"--source", "debian"}, "run this once and try again: sudo apt-get update"},
		"architecture":     {arm, []string{"--source", "debian"}, "this machine is arm64"},
		"unknown source":   {"", []string{"--source", "gentoo"}, "unknown source gentoo"},
		"unknown argument": {"", []string{"--frob"}, "unknown argument --frob"},
		"no value":         {"", []string{"--source"}, "--source needs a value"},
		"absent file":      {"", []string{"--source", "/no/such.deb"}, "no such file: /no/such.deb"},
		"no kernel":        {"", []string{"--source", noKernel}, "no boot/vmlinuz-*"},
		"no x86 kernel":    {"", []string{"--source", noImage}, "is no x86 kernel"},
		"no package":       {"", []string{"--source", garbage}, "is no package"},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			out, err := download(t, c.bin, append([]string{"--root", root}, c.args...)...)
			if err == nil || !strings.Contains(out, c.says) {
				t.Errorf("%v\n%s\nwant %q", err, out, c.says)
			}
			if _, err := os.Lstat(filepath.Join(root, "vmlinux")); err == nil {
				t.Error("a kernel was put in place")
			}
			if _, err := os.Stat(root); err == nil {
				noLeftovers(t, root)
			}
		})
	}
}

// fakeCurl answers as the bucket does, with what ARRIVES names as the kernel.
const fakeCurl = `#!/bin/sh
for a; do last=$a; case ${prev-} in --output) out=$a ;; esac; prev=$a; done
case $last in
*list-type*) for v in 5.10.239 6.1.99 6.1.141 6.1.141-no-acpi 6.1.141.config; do
	echo "<Key>firecracker-ci/v1.13/x86_64/vmlinux-$v</Key>"; done ;;
*.config) exit 22 ;;
*/vmlinux-6.1.141) cp "$ARRIVES" "$out" ;;
*) exit 22 ;;
esac
`

func TestDownloadFromFirecracker(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	writeFiles(t, bin, map[string]string{"curl": fakeCurl})
	writeFiles(t, dir, map[string]string{
		"good":    "\x7fELF\x00\x00Linux version %s\x00Linux version 6.1.141 (me)\x00",
		"error":   "<html>not found</html>",
		"unnamed": "\x7fELF and nothing more",
	})
	for name, says := range map[string]string{"good": "kernel 6.1.141 is at", "error": "is no ELF kernel", "unnamed": "names no Linux version"} {
		root := filepath.Join(t.TempDir(), "root")
		t.Setenv("ARRIVES", filepath.Join(dir, name))
		out, err := download(t, bin, "--root", root, "--source", "firecracker")
		if (err == nil) != (name == "good") || !strings.Contains(out, says) {
			t.Errorf("%s: %v\n%s\nwant %q", name, err, out, says)
		}
		if name == "good" {
			noLeftovers(t, root, "6.1.141")
			if link, _ := os.Readlink(filepath.Join(root, "vmlinux")); link != "kernels/6.1.141/vmlinux" {
				t.Errorf("vmlinux -> %s", link)
			}
			continue
		}
		noLeftovers(t, root)
	}
}
