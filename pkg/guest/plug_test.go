package guest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/micropod/micropod/pkg/agent/api"
)

// TestPutAway: a device that is put away is nowhere to be seen, and its name is free.
func TestPutAway(t *testing.T) {
	inNewNetwork(t)
	var d hostNICs
	for range 2 { // as the next boot would not: both are in one namespace then
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}); err != nil {
			t.Fatal(err)
		}
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.putAway(dev.Index); err != nil {
			t.Fatal(err)
		}
		if _, err := net.InterfaceByName("eth0"); err == nil {
			t.Fatal("it is there still")
		}
		peer, err := netlink.LinkByName("peer0") // of which the other end is elsewhere
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetName(peer, "gone"); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkDel(peer); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.putAway(1 << 20); err == nil {
		t.Error("a device that is not there is put away")
	}
}

// TestRoutes: the routes over a gateway are made when it becomes the container's, and
// are the container's own then: one that goes another way does so still when it comes
// into one more network.
func TestRoutes(t *testing.T) {
	inNewNetwork(t)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}
	addr, err := netlink.ParseAddr("10.66.0.2/24")
	if err := errors.Join(err, netlink.LinkAdd(link), netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	d := hostNICs{list: []hostNIC{{mac: "02:00:00:00:00:01", index: link.Attrs().Index}}}
	out, everywhere := api.NIC{MAC: "02:00:00:00:00:01", Gateway: "10.66.0.1"}, &netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
	for i, step := range []struct {
		nic  api.NIC
		want int
	}{{out, 1}, {out, 0}, {api.NIC{MAC: out.MAC}, 0}, {out, 1}} {
		if err := d.become([]api.NIC{step.nic}); err != nil {
			t.Fatal(err)
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, everywhere, netlink.RT_FILTER_DST)
		if err != nil || len(routes) != step.want {
			t.Errorf("step %d: %v, %v; want %d", i, routes, err, step.want)
		}
		for _, r := range routes {
			if err := netlink.RouteDel(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.become([]api.NIC{{MAC: "02:00:00:00:00:02"}}); err != nil { // its connection has ended
		t.Error(err)
	}
	if err := d.become([]api.NIC{{MAC: "02:00:00:00:00:02", Gateway: "10.66.0.1"}}); err == nil {
		t.Error("a route over a device that is not there")
	}
}

// TestSupersede: of a network that the guest was not told to have left there is no
// second device with the same address, of which the first leads nowhere.
func TestSupersede(t *testing.T) {
	inNewNetwork(t)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	of := api.NIC{MAC: "02:00:00:00:00:01", Address: "10.66.0.2/24"}
	others := []hostNIC{{mac: of.MAC, address: "10.77.0.2/24"}, {mac: "02:00:00:00:00:02", address: of.Address}}
	d := hostNICs{list: append([]hostNIC{{mac: of.MAC, address: of.Address, index: link.Attrs().Index}, {mac: of.MAC, address: of.Address, tap: w}}, others...)}
	if err := d.supersede(of); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.list, others) {
		t.Errorf("%+v", d.list)
	}
	if _, err := net.InterfaceByName("eth0"); err == nil {
		t.Error("the device of the boot is there")
	}
	if err := w.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the late device is there: %v", err)
	}
	if d.list[0].tap, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	d.list = append(d.list[:1], hostNIC{mac: of.MAC, address: of.Address})
	if err := d.become([]api.NIC{of}); err != nil || len(d.list) != 1 || d.list[0].address != of.Address {
		t.Errorf("of two with the same MAC one leaves its network: %+v, %v", d.list, err)
	}
}

// TestReplace changes a file that is as it was written, and no other.
func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("nameserver 192.0.2.1\nsearch here\n")
	f := etcFile{path, "nameserver 192.0.2.1\nsearch here\n"}
	for _, step := range []struct{ change, text, want string }{
		{"", "nameserver 192.0.2.2\n", "nameserver 192.0.2.2\n"}, // shorter
		{"", "nameserver 192.0.2.3\nsearch there\n", "nameserver 192.0.2.3\nsearch there\n"},
		{"mine\n", "nameserver 192.0.2.4\n", "mine\n"},
		{"nameserver 192.0.2.3\nsearch there\n# and more\n", "nameserver 192.0.2.4\n", "nameserver 192.0.2.3\nsearch there\n# and more\n"},
		{"nameserver 192.0.2.3\nsearch there\n", "", ""},
	} {
		if step.change != "" {
			write(step.change)
		}
		if err := f.replace(step.text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != step.want {
			t.Errorf("%q, %v; want %q", got, err, step.want)
		}
	}
}
