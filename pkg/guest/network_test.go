package guest

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

func TestFindNIC(t *testing.T) {
	dir := t.TempDir()
	for name, mac := range map[string]string{"lo": "00:00:00:00:00:00", "eth0": "02:42:0a:00:02:0f"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "address"), []byte(mac+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findNIC(dir, "02:42:0a:00:02:0f"); err != nil || got != "eth0" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := findNIC(dir, "02:42:0a:00:02:10"); err == nil {
		t.Errorf("found %q for an address that nobody has", got)
	}
}

func TestNetmask(t *testing.T) {
	for bits, want := range map[int]string{0: "0.0.0.0", 8: "255.0.0.0", 24: "255.255.255.0", 25: "255.255.255.128", 32: "255.255.255.255"} {
		if got := netmask(bits).String(); got != want {
			t.Errorf("/%d is %s, want %s", bits, got, want)
		}
	}
}

// The kernel's structure has 120 bytes on 64-bit machines, and rt_dev at 88.
func TestRouteEntry(t *testing.T) {
	var r rtentry
	if size, at := unsafe.Sizeof(r), unsafe.Offsetof(r.dev); size != 120 || at != 88 {
		t.Errorf("%d bytes, the device at %d", size, at)
	}
}
