package guest_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/vmm"
)

// privileged is a container that may mount the guest's devices.
func privileged(script string) api.StartRequest {
	r := sh(script)
	r.AllDevices = true
	caps := append(slices.Clone(r.Spec.Process.Capabilities.Bounding), "CAP_SYS_ADMIN")
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	return r
}

// openDisk gives the guest a file as a disk.
func (vm *guestVM) openDisk(path string, readOnly bool) *agent.Disk {
	vm.t.Helper()
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		vm.t.Fatal(err)
	}
	d, err := agent.OpenDisk(vm.ctx, vm.sock, testToken, f, readOnly)
	if err != nil {
		vm.t.Fatal(err)
	}
	vm.t.Cleanup(func() { d.Close(); f.Close() })
	return d
}

// TestDisks: disks that come while the guest runs, one after the other.
func TestDisks(t *testing.T) {
	vm := newVM(t)
	for _, test := range []struct {
		name string
		run  func(*guestVM, *testing.T)
	}{
		{"read", (*guestVM).diskRead}, {"write", (*guestVM).diskWrite}, {"in use", (*guestVM).diskInUse},
		{"host gone", (*guestVM).diskHostGone}, {"many", (*guestVM).diskMany}, {"refused", (*guestVM).diskRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			vm.t = t
			test.run(vm, t)
			vm.noDisks(t)
		})
	}
}

// noDisks waits until the guest has no device of an earlier disk. The kernel takes
// it away in its own time.
func (vm *guestVM) noDisks(t *testing.T) {
	t.Helper()
	r := vm.run(privileged("for i in $(seq 100); do ls -d /sys/block/nbd* 2>/dev/null || exit 0; sleep 0.1; done; exit 1"))
	if r.exit.Code != 0 {
		t.Errorf("devices stay: %+v", r)
	}
}

// diskRead: what the guest has is what the file holds, and nothing can be written.
func (vm *guestVM) diskRead(t *testing.T) {
	b := testBench(t)
	start := time.Now()
	d := vm.openDisk(b.erofs, true)
	t.Logf("%s after %v", d.Device(), time.Since(start))
	sum := strings.Fields(run(t, "sha256sum", b.erofs))[0]
	r := vm.run(privileged(fmt.Sprintf("sha256sum %s; mkdir -p /m; mount -t erofs -o ro %[1]s /m && cmp /m/bin/busybox /bin/busybox && cat /m/canary/file; umount /m; echo x > %[1]s",
		d.Device())))
	if !strings.HasPrefix(r.stdout, sum) || !strings.HasSuffix(r.stdout, "untouched\n") || r.exit.Code == 0 {
		t.Errorf("%+v", r)
	}
	if err := d.Detach(vm.ctx); err != nil {
		t.Error(err)
	}
	if after := strings.Fields(run(t, "sha256sum", b.erofs))[0]; after != sum {
		t.Error("the image has changed")
	}
}

// writable makes the disk of a container.
func writable(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rw.img")
	if err := rootfs.CreateWritable(path, size, true); err != nil {
		t.Fatal(err)
	}
	return path
}

// diskWrite: more is written than the guest has memory for, while another process
// takes all that there is: the agent, through which it goes, needs none that comes
// free only by writing. All of it is in the file, in the order that a journal needs.
func (vm *guestVM) diskWrite(t *testing.T) {
	path := writable(t, 512<<20)
	d := vm.openDisk(path, false)
	start := time.Now()
	r := vm.run(privileged(fmt.Sprintf("mkdir -p /m; mount -t ext4 %s /m || exit 2; tail /dev/zero & echo kept > /m/file; "+
		"dd if=/dev/zero bs=1M count=200 | tr '\\0' x > /m/large; wait; sync; fstrim /m; umount /m; blockdev --getsize64 %[1]s", d.Device())))
	if r.exit.Code != 0 || r.stdout != "536870912\n" {
		t.Fatalf("%+v", r)
	}
	t.Logf("200 MiB after %v", time.Since(start))
	if err := d.Detach(vm.ctx); err != nil {
		t.Fatal(err)
	}
	run(t, tool(t, "e2fsck"), "-fn", path)
	if got := run(t, tool(t, "debugfs"), "-R", "cat /file", path); !strings.HasSuffix(got, "kept\n") {
		t.Errorf("file holds %q", got)
	}
	out := filepath.Join(t.TempDir(), "large")
	run(t, "debugfs", "-R", "dump /large "+out, path)
	if b, err := os.ReadFile(out); err != nil || len(b) != 200<<20 || len(bytes.Trim(b, "x")) != 0 {
		t.Errorf("%d bytes of large, %v", len(b), err)
	}
}

// diskInUse: what is mounted is not taken away in order.
func (vm *guestVM) diskInUse(t *testing.T) {
	path := writable(t, 64<<20)
	d := vm.openDisk(path, false)
	r := privileged(fmt.Sprintf("mkdir -p /m; mount -t ext4 %s /m && echo mounted; read x; echo late > /m/file", d.Device()))
	r.Stdin = true
	s, err := vm.start(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, b, err := s.ReadFrame(); err != nil || string(b) != "mounted\n" {
		t.Fatalf("%q, %v", b, err)
	}
	var e *api.Error
	if err := d.Detach(vm.ctx); !errors.As(err, &e) || e.Code != api.CodeConflict {
		t.Errorf("while it is mounted: %v", err)
	}
	if err := s.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	if r := vm.wait(s); r.exit.Code != 0 {
		t.Errorf("%+v", r)
	}
	if err := d.Detach(vm.ctx); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if got := run(t, tool(t, "debugfs"), "-R", "cat /file", path); !strings.HasSuffix(got, "late\n") {
		t.Errorf("file holds %q", got)
	}
	if err := d.Detach(vm.ctx); !errors.As(err, &e) || e.Code != api.CodeNotFound {
		t.Errorf("once more: %v", err)
	}
}

// diskHostGone: where the host is gone, all that waits for the disk fails, and the
// guest goes on.
func (vm *guestVM) diskHostGone(t *testing.T) {
	path := writable(t, 256<<20)
	d := vm.openDisk(path, false)
	s, err := vm.start(privileged(fmt.Sprintf("mkdir -p /m; mount -t ext4 %s /m && echo mounted; "+
		"while dd if=/dev/zero of=/m/file bs=64k count=64 conv=fsync 2>/dev/null; do :; done; cat /m/file > /dev/null; echo over", d.Device())))
	if err != nil {
		t.Fatal(err)
	}
	if _, b, err := s.ReadFrame(); err != nil || string(b) != "mounted\n" {
		t.Fatalf("%q, %v", b, err)
	}
	for st, end := new(unix.Stat_t), time.Now().Add(time.Minute); st.Blocks < 8192; time.Sleep(10 * time.Millisecond) {
		if err := unix.Stat(path, st); err != nil || time.Now().After(end) {
			t.Fatalf("nothing is written: %d blocks, %v", st.Blocks, err)
		}
	}
	d.Close()
	if r := vm.wait(s); r.stdout != "over\n" {
		t.Errorf("%+v", r)
	}
	if d.Err() == nil {
		t.Error("that was an orderly end")
	}
}

// diskMany: disks have devices of their own, and an end is that of one of them.
func (vm *guestVM) diskMany(t *testing.T) {
	const n = 12
	var disks []*agent.Disk
	for i := range n {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, bytes.Repeat([]byte{'a' + byte(i)}, 1024), 0o600); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, vm.openDisk(path, true))
	}
	disks[0].Close()
	if err := disks[1].Detach(vm.ctx); err != nil {
		t.Fatal(err)
	}
	script, want := "", ""
	for i, d := range disks[2:] {
		script += "head -c 3 " + d.Device() + "; tail -c 1 " + d.Device() + "\n"
		want += strings.Repeat(string(rune('c'+i)), 4)
	}
	if r := vm.run(privileged(script)); r.stdout != want {
		t.Errorf("%+v, want %q", r, want)
	}
	for _, d := range disks[2:] {
		if err := d.Detach(vm.ctx); err != nil {
			t.Error(err)
		}
	}
}

// diskRefused: what the guest takes for no disk, and who has no token.
func (vm *guestVM) diskRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := agent.OpenDisk(vm.ctx, vm.sock, testToken, f, true); err == nil || !strings.Contains(err.Error(), "no whole sectors") {
		t.Errorf("half a sector: %v", err)
	}
	if _, err := agent.OpenDisk(vm.ctx, vm.sock, "wrong", f, true); err == nil {
		t.Error("a wrong token")
	}
}

// TestDiskWithoutModule: what the kernel lacks is said, and who can mend it; the
// guest goes on.
func TestDiskWithoutModule(t *testing.T) {
	b := testBench(t)
	vm := bootWith(t, func(c *vmm.Config) { c.Initrd = b.noNBD }, vmm.Disk{Path: b.erofs, ReadOnly: true})
	vm.setup(api.Root{Format: "erofs", Devices: []string{"/dev/vda"}})
	f, err := os.Open(b.erofs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		var e *api.Error
		_, err := agent.OpenDisk(vm.ctx, vm.sock, testToken, f, true)
		if !errors.As(err, &e) || e.Code != api.CodeInternal || !strings.Contains(e.Message, "no CONFIG_BLK_DEV_NBD") || !strings.Contains(e.Message, "scripts/download-kernel.sh") {
			t.Errorf("%v", err)
		}
	}
	if r := vm.run(sh("echo on")); r.stdout != "on\n" {
		t.Errorf("%+v", r)
	}
}

// TestDiskSignedModule: a kernel that takes no module without its signature gets it.
func TestDiskSignedModule(t *testing.T) {
	b := testBench(t)
	vm := bootWith(t, func(c *vmm.Config) { c.Args = []string{"module.sig_enforce=1"} }, vmm.Disk{Path: b.erofs, ReadOnly: true})
	vm.setup(api.Root{Format: "erofs", Devices: []string{"/dev/vda"}})
	if err := vm.openDisk(b.erofs, true).Detach(vm.ctx); err != nil {
		t.Error(err)
	}
}
