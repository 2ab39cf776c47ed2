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

// The sizes of the kernel's structures, and where their last fields are, on
// 64-bit machines.
func TestKernelStructures(t *testing.T) {
	for _, c := range []struct {
		name             string
		size, wantSize   uintptr
		field, wantField uintptr
	}{
		{"rtentry", unsafe.Sizeof(rtentry{}), 120, unsafe.Offsetof(rtentry{}.dev), 88},
		{"ifreq", unsafe.Sizeof(ifreq{}), 40, unsafe.Offsetof(ifreq{}.value), 16},
		{"in6_ifreq", unsafe.Sizeof(in6Ifreq{}), 24, unsafe.Offsetof(in6Ifreq{}.dev), 20},
		{"in6_rtmsg", unsafe.Sizeof(in6Rtmsg{}), 80, unsafe.Offsetof(in6Rtmsg{}.dev), 76},
	} {
		if c.size != c.wantSize || c.field != c.wantField {
			t.Errorf("%s: %d bytes, want %d; its last field at %d, want %d", c.name, c.size, c.wantSize, c.field, c.wantField)
		}
	}
}
