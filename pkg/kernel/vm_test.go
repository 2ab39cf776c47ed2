package kernel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The kernel itself is the judge of the ELF, of the load order and of Support:
// it boots in a microVM, loads the modules and says which devices and file
// systems it then has.
func TestModulesLoadInVM(t *testing.T) {
	k, _ := openReal(t)
	qemu, busybox := tool(t, "qemu-system-x86_64"), tool(t, "busybox")
	mods, err := k.Modules(VirtioMMIO, VirtioBlk, VirtioNet, VirtioConsole, VirtioVsock, VirtioRNG,
		VirtioBalloon, EROFS, Ext4, Overlay, Squashfs, FUSE, NBD)
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	writeInitrd(t, initrd, busybox, mods)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-M", "microvm,accel=tcg", "-m", "256", "-nodefaults", "-no-user-config",
		"-nographic", "-no-reboot", "-serial", "stdio", "-kernel", k.Path, "-initrd", initrd,
		// Without the tsc words the kernel measures the clock, and hangs when
		// the machine is too busy for that.
		"-append", "console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=2000000 tsc=reliable",
		"-device", "virtio-rng-device", "-device", "virtio-serial-device",
		"-chardev", "null,id=n", "-device", "virtserialport,chardev=n,name=micropod.agent",
		"-netdev", "user,id=u,restrict=on", "-device", "virtio-net-device,netdev=u")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	console := strings.ReplaceAll(string(out), "\r", "")
	for _, want := range []string{"release " + k.Release, "fs erofs", "fs ext4", "fs overlay", "fs squashfs", "block nbd0 0",
		"net eth0", "port micropod.agent", "rng virtio_rng.0", "end"} {
		if !strings.Contains(console, want+"\n") {
			t.Errorf("no %q on the console", want)
		}
	}
	if strings.Contains(console, "insmod:") || t.Failed() {
		t.Errorf("console:\n%s", console)
	}
}

const vmInit = `#!/bin/busybox sh
bb=/bin/busybox
$bb mkdir /proc /sys
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
for m in /modules/*; do $bb insmod $m; done
echo "release $($bb uname -r)"
while read a b; do echo "fs ${b:-$a}"; done </proc/filesystems
for n in /sys/class/net/*; do echo "net ${n##*/}"; done
for p in /sys/class/virtio-ports/*/name; do echo "port $($bb cat $p)"; done
for d in /sys/block/nbd0; do echo "block ${d##*/} $($bb cat $d/size)"; done
echo "rng $($bb cat /sys/class/misc/hw_random/rng_current)"
echo end
$bb reboot -f
`

func writeInitrd(t *testing.T, path, busybox string, mods []Module) {
	t.Helper()
	var w bytes.Buffer
	add := func(name string, mode int, body []byte) {
		fmt.Fprintf(&w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			0, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name)+1, 0, name)
		pad := func() { w.Write(make([]byte, -w.Len()&3)) }
		pad()
		w.Write(body)
		pad()
	}
	bb, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "dev", "modules"} {
		add(dir, 0o40755, nil)
	}
	add("bin/busybox", 0o100755, bb)
	add("init", 0o100755, []byte(vmInit))
	for i, m := range mods {
		r, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		add(fmt.Sprintf("modules/%02d-%s.ko", i, m.Name), 0o100644, b)
	}
	add("TRAILER!!!", 0, nil)
	if err := os.WriteFile(path, w.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
