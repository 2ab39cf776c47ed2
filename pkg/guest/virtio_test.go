package guest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func testBus(t *testing.T, devices map[string]string) virtioBus {
	t.Helper()
	bus := t.TempDir()
	for name, id := range devices {
		dir := filepath.Join(bus, "devices", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "device"), []byte(id), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return virtioBus(bus)
}

func TestVirtioBusHas(t *testing.T) {
	bus := testBus(t, map[string]string{"virtio0": "0x0002\n", "virtio1": "0x0013\n", "virtio2": "nonsense\n"})
	for id, want := range map[uint64]bool{2: true, 0x13: true, deviceSerial: false, 0: false} {
		if bus.has(id) != want {
			t.Errorf("device %d: %t", id, !want)
		}
	}
	if testBus(t, nil).has(2) {
		t.Error("a device on an empty bus")
	}
}

// The order is the one in which disks are named.
func TestVirtioBusOrder(t *testing.T) {
	bus := testBus(t, map[string]string{"virtio10": "", "virtio9": "", "virtio0": "", "virtio11": ""})
	if got, want := bus.devices(), []string{"virtio0", "virtio9", "virtio10", "virtio11"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVirtioBusHoldAndRelease(t *testing.T) {
	bus := testBus(t, map[string]string{"virtio0": "", "virtio1": ""})
	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(string(bus), name))
		return string(b)
	}
	if err := bus.hold(); err != nil || read("drivers_autoprobe") != "0" {
		t.Errorf("held: %q, %v", read("drivers_autoprobe"), err)
	}
	if err := bus.release(); err != nil || read("drivers_autoprobe") != "1" || read("drivers_probe") != "virtio1" {
		t.Errorf("released: %q, last %q, %v", read("drivers_autoprobe"), read("drivers_probe"), err)
	}
	if err := virtioBus(filepath.Join(string(bus), "none")).hold(); err == nil {
		t.Error("no error without a bus")
	}
}
