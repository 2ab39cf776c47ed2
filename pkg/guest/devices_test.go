package guest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGuestDevices(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes devices")
	}
	dir := t.TempDir()
	for _, d := range []string{"pts", "net", "shm"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, dev := range map[string][3]uint32{
		"vda": {unix.S_IFBLK | 0o660, 254, 0}, "net/tun": {unix.S_IFCHR | 0o600, 10, 200},
		"pts/0": {unix.S_IFCHR | 0o620, 136, 0}, "console": {unix.S_IFCHR | 0o600, 5, 1}, "fifo": {unix.S_IFIFO | 0o600, 0, 0},
	} {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, dev[0], int(unix.Mkdev(dev[1], dev[2]))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, os.FileMode(dev[0]&0o777)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	devices, err := guestDevices(dir)
	if err != nil || len(devices) != 2 {
		t.Fatalf("%+v, %v", devices, err)
	}
	for i, want := range []device{{"/dev/net/tun", unix.S_IFCHR | 0o600, 10, 200, 0, 0}, {"/dev/vda", unix.S_IFBLK | 0o660, 254, 0, 0, 0}} {
		if got, err := specDevice(devices[i]); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}
