package guest

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// inNewNetwork puts the test into a network namespace of its own.
func inNewNetwork(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes network devices")
	}
	runtime.LockOSThread() // for ever: the namespace ends with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// TestTakeAddresses: of two devices, here a veth pair, one has the address of a template.
func TestTakeAddresses(t *testing.T) {
	inNewNetwork(t)
	dir := t.TempDir()
	pair := netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "one"}, PeerName: "two"}
	for name, mac := range map[string]*net.HardwareAddr{"one": &pair.HardwareAddr, "two": &pair.PeerHardwareAddr} {
		*mac = net.HardwareAddr{2, 0, 0, 0, 0xfe, 0}
		if name == "two" {
			*mac = net.HardwareAddr{2, 0x42, 0xa, 0, 2, 0x10}
		}
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "address"), []byte(mac.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkAdd(&pair); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	nics := []api.NIC{
		{MAC: "02:42:0a:00:02:0f", TemplateMAC: "02:00:00:00:fe:00"},
		{MAC: "02:42:0a:00:02:10", TemplateMAC: "02:00:00:00:fe:01"},
		{MAC: "02:42:0a:00:02:11"},
	}
	if err := takeAddresses(fd, dir, nics); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"one": "02:42:0a:00:02:0f", "two": "02:42:0a:00:02:10"} {
		if dev, err := net.InterfaceByName(name); err != nil || dev.HardwareAddr.String() != want {
			t.Errorf("%s: %+v, %v, want %s", name, dev, err, want)
		}
	}
	for _, mac := range []string{"", "x", "03:00:00:00:00:01", "02:00:00:00:00:01:02:03"} {
		if err := takeAddresses(fd, dir, []api.NIC{{MAC: mac, TemplateMAC: "02:00:00:00:fe:00"}}); err == nil {
			t.Errorf("address %q is taken", mac)
		}
	}
}
