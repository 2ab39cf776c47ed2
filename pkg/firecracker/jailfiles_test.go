package firecracker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// TestJailOfBlockDevices: a device gets a node in the jail, the host's one stays
// as it is.
func TestJailOfBlockDevices(t *testing.T) {
	d := jailDriver(t)
	c := setup(t)
	for _, disk := range c.Disks {
		if err := errors.Join(os.Remove(disk.Path), unix.Mknod(disk.Path, unix.S_IFBLK|0o660, int(unix.Mkdev(7, 0)))); err != nil {
			t.Fatal(err)
		}
	}
	m, err := d.prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.abandon()
	if err := m.buildJail(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]string{"vda": "Dr--------", "vdb": "Drw-------"} {
		if got, want := show(t, filepath.Join(m.jail.root, name)), fmt.Sprintf("%s %d:%d 1", mode, m.jail.id(), m.jail.id()); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, disk := range c.Disks {
		if got := show(t, disk.Path); !strings.HasPrefix(got, "Drw-") || !strings.HasSuffix(got, " 0:0 1") {
			t.Errorf("the host's device is %s", got)
		}
	}
}

// TestPlantedLinks: a link in the jail's way is never followed (CVE-2026-1386).
func TestPlantedLinks(t *testing.T) {
	d := jailDriver(t)
	victim := filepath.Join(t.TempDir(), "victim")
	writeFile(t, victim, "precious")
	for name, tt := range map[string]struct {
		plant func(c vmm.Config) error
		want  string // "" for a start that works all the same
	}{
		"the jail is a link": {func(c vmm.Config) error { return os.Symlink(filepath.Dir(victim), filepath.Join(c.Dir, jailDir)) },
			"is no directory"},
		"a link in an old jail": {func(c vmm.Config) error {
			root := filepath.Join(c.Dir, jailDir, "firecracker", c.ID, "root")
			err := os.MkdirAll(filepath.Join(root, "dev"), 0o700)
			return errors.Join(err, os.Symlink(victim, filepath.Join(root, "firecracker")),
				os.Symlink(victim, filepath.Join(root, "firecracker.pid")), os.Symlink(victim, filepath.Join(root, "dev/kvm")))
		}, ""},
		"the place of the jail is others'": {func(c vmm.Config) error { return os.Chmod(c.Dir, 0o770) }, "others can write"},
		"its parent is others'":            {func(c vmm.Config) error { return os.Chmod(filepath.Dir(c.Dir), 0o777) }, "others can write"},
		"the place belongs to a user":      {func(c vmm.Config) error { return os.Chown(c.Dir, 1234, 1234) }, "belongs to user 1234"},
		"an old jail of a user": {func(c vmm.Config) error {
			jail := filepath.Join(c.Dir, jailDir)
			return errors.Join(os.Mkdir(jail, 0o700), os.Chown(jail, 1234, 1234))
		}, "belongs to user 1234"},
	} {
		t.Run(name, func(t *testing.T) {
			c := setup(t)
			if err := tt.plant(c); err != nil {
				t.Fatal(err)
			}
			m, err := runSteps(d, c, true)
			if err == nil {
				m.abandon()
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("start: %v, want %q", err, tt.want)
			}
			if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
				t.Errorf("the victim is %q, %v", text, err)
			}
			if got := show(t, victim); got != "-rw------- 0:0 1" {
				t.Errorf("the victim is %s", got)
			}
		})
	}
}

// TestJailRefusesOtherSockets: what a jail holds under the socket's name is
// given no name outside unless it is the VMM's socket.
func TestJailRefusesOtherSockets(t *testing.T) {
	c := setup(t)
	m := jailMachine(t, jailDriver(t), c)
	for name, plant := range map[string]func(path string) error{
		"a link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"ours":   func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	} {
		planted, out := filepath.Join(m.jail.root, "planted"), filepath.Join(c.Dir, "out")
		if err := plant(planted); err != nil {
			t.Fatal(err)
		}
		if name != "ours" {
			if err := os.Lchown(planted, m.jail.id(), m.jail.id()); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.jail.linkOut("planted", out); err == nil || !strings.Contains(err.Error(), "is no socket of the VMM") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is outside: %v", name, err)
		}
		if err := os.Remove(planted); err != nil {
			t.Fatal(err)
		}
	}
}

// tmpfs mounts a file system for this test.
func tmpfs(t *testing.T, flags uintptr) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fcfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=32m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestJailOfOtherFileSystems: files that cannot be linked are bound, and the
// jail may lie where neither devices nor programs are allowed.
func TestJailOfOtherFileSystems(t *testing.T) {
	d := jailDriver(t)
	files := setup(t)
	c := configIn(tmpfs(t, unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOSUID))
	c.Kernel, c.Initrd, c.Disks = files.Kernel, files.Initrd, files.Disks
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m := jailMachine(t, d, c)
	checkJailedDescriptors(t, m)
	for i, b := range m.jail.binds {
		want := []bind{
			{c.Kernel, filepath.Join(m.jail.root, "kernel"), true},
			{c.Initrd, filepath.Join(m.jail.root, "initrd"), true},
			{c.Disks[0].Path, filepath.Join(m.jail.root, "vda"), true},
			{c.Disks[1].Path, filepath.Join(m.jail.root, "vdb"), false},
		}
		if i >= len(want) || b != want[i] {
			t.Errorf("bind %d is %+v", i, b)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if root := lineOf(string(mounts), ""); strings.Contains(root, "nodev") || strings.Contains(root, "noexec") || !strings.Contains(root, " / rw,nosuid") {
		t.Errorf("the root is mounted as %s", root)
	}
	for name, mode := range map[string]string{"kernel": "ro", "initrd": "ro", "vda": "ro", "vdb": "rw"} {
		if want := " /" + name + " " + mode + ",nosuid,nodev,noexec"; !strings.Contains(string(mounts), want) {
			t.Errorf("no mount%s among\n%s", want, mounts)
		}
	}
	id := m.jail.id()
	if got := show(t, c.Disks[1].Path); got != fmt.Sprintf("-rw------- %d:%d 1", id, id) {
		t.Errorf("while it runs the disk is %s", got)
	}
	m.abandon()
	checkFreed(t, d, c, id)
	if got := show(t, c.Disks[1].Path); got != "-rw------- 0:0 1" {
		t.Errorf("the disk came back as %s", got)
	}
}

// TestJailOfPublicFiles: a file that lies in the open is not opened up.
func TestJailOfPublicFiles(t *testing.T) {
	d := jailDriver(t)
	public, err := os.MkdirTemp("", "fcpub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(public) })
	if err := os.Chmod(public, 0o755); err != nil {
		t.Fatal(err)
	}
	c := setup(t)
	c.Kernel = filepath.Join(public, "vmlinux")
	writeFile(t, c.Kernel, "a kernel")
	m := jailMachine(t, d, c)
	copied := filepath.Join(m.jail.root, "kernel")
	if got, want := show(t, copied), fmt.Sprintf("-r-------- %d:%d 1", m.jail.id(), m.jail.id()); got != want {
		t.Errorf("the copy is %s, want %s", got, want)
	}
	if text, err := os.ReadFile(copied); err != nil || string(text) != "a kernel" {
		t.Errorf("the copy holds %q, %v", text, err)
	}
	if got := show(t, c.Kernel); got != "-rw------- 0:0 1" {
		t.Errorf("the kernel is %s", got)
	}
	m.abandon()
	c.Disks[0].Path = filepath.Join(public, "disk")
	writeFile(t, c.Disks[0].Path, strings.Repeat("x", 4096))
	if _, err := runSteps(d, c, true); err == nil || !strings.Contains(err.Error(), "disk vda: ") || !strings.Contains(err.Error(), "put it into a directory of mode 0700") {
		t.Errorf("a disk in the open: %v", err)
	}
	if got := show(t, c.Disks[0].Path); got != "-rw------- 0:0 1" {
		t.Errorf("the disk is %s", got)
	}
}
