package rootfs

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// mount mounts disks[0] with loop devices until the end of the test; the rest
// are EROFS devices. It skips when not root.
func mount(t testing.TB, fstype, options string, disks ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	var devs []string
	for i, disk := range disks {
		args := []string{"-f", "--show", disk}
		if options != "rw" {
			args = append([]string{"-r"}, args...)
		}
		dev := strings.TrimSpace(run(t, "losetup", args...))
		t.Cleanup(func() {
			if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
				t.Errorf("losetup -d %s: %s", dev, out)
			}
		})
		devs = append(devs, dev)
		if i > 0 {
			options += ",device=" + dev
		}
	}
	mnt := t.TempDir()
	run(t, "mount", "-t", fstype, "-o", options, devs[0], mnt)
	t.Cleanup(func() {
		if isMounted(t, mnt) {
			if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
				t.Errorf("umount %s: %s", mnt, out)
			}
		}
	})
	return mnt
}

func isMounted(t testing.TB, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+dir+" ")
}
