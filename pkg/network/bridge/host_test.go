package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/state"
)

func TestAvailable(t *testing.T) {
	err := Available()
	if os.Geteuid() != 0 {
		if err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("without root: %v", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
	}
}

// TestTwoRoots is that two root directories have their networks apart, and that
// neither takes away what is the other's.
func TestTwoRoots(t *testing.T) {
	l := newLab(t)
	other := *l
	other.h.Table = "micropod-other"
	ea, eb := testEndpoint(testNetwork(1), 2), testEndpoint(testNetwork(2), 2)
	eb.Forwards = []Forward{
		{"tcp", netip.MustParseAddrPort(hostLAN + ":8080"), 80}, {"udp", netip.MustParseAddrPort(hostLAN + ":8080"), 80},
	}
	a, b := l.guest(ea), other.guest(eb)
	serve(l.host, ":82")
	check(t, []reach{
		{"", a, "10.89.2.2:80", ""}, {"", b, "10.89.1.2:80", ""}, {"", a, "10.89.2.1:82", ""}, {"", b, "10.89.1.1:82", ""},
		{"", a, hostLAN + ":8080", "10.89.1.2"}, {"", a, "198.51.100.9:80", hostUp}, {"", b, "198.51.100.9:80", hostUp},
	}...)
	before := l.snapshot()
	l.host.do(refusal(func() error { return l.h.Join(eb) }).refused)
	l.wantSnapshot("after a Join that was refused", before)
	l.host.do(func() error { return l.h.Restore(func() ([]Endpoint, error) { return nil, nil }, nobody) })
	l.wantLeftovers(nobody)
	check(t, reach{"", b, "198.51.100.9:80", hostUp})
}

// refused turns a function about.
func (f refusal) refused() error {
	if f() == nil {
		return fmt.Errorf("no error")
	}
	return nil
}

type refusal func() error

// TestSysctls is what a network makes of the host, and what it does not.
func TestSysctls(t *testing.T) {
	l := newLab(t)
	four, inside, six := testEndpoint(testNetwork(1), 2), testEndpoint(testNetwork(2), 2), testEndpoint(testNetwork(3), 2)
	four.Address6, four.Network.Subnet6, four.Network.Gateway6 = netip.Prefix{}, netip.Prefix{}, netip.Addr{}
	inside.Network.Internal = true
	const forward, forward6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"
	steps := []struct {
		join Endpoint
		want map[string]string
	}{
		{inside, map[string]string{forward: "0", forward6: "0", "ipv6/conf/up0/accept_ra": "1"}},
		{four, map[string]string{forward: "1", forward6: "0", "ipv6/conf/mp-000000000001/disable_ipv6": "1"}},
		{six, map[string]string{
			forward: "1", forward6: "1", "ipv6/conf/up0/accept_ra": "2", "ipv6/conf/default/accept_ra": "1",
			"ipv6/conf/mp-000000000003/accept_ra": "0", "ipv4/conf/mp-000000000003/rp_filter": "1",
		}},
	}
	for _, s := range steps {
		l.host.do(func() error { return l.h.Join(s.join) })
		for name, want := range s.want {
			if got := strings.TrimSpace(l.host.run("cat " + sysctlDir + "/" + name)); got != want {
				t.Errorf("%s: %s is %s, want %s", s.join.VM, name, got, want)
			}
		}
	}
}

// TestMarksOfOthers is that what others do with marks, as WireGuard's scripts do,
// is in nobody's way.
func TestMarksOfOthers(t *testing.T) {
	for name, filtered := range map[string]bool{"bridge": false, "br_netfilter": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.bridgeFilter(filtered)
			l.host.sysctl("ipv4/conf/all/src_valid_mark", "1")
			g := l.guest(testEndpoint(testNetwork(1), 2))
			for _, c := range []string{
				"add table inet vpn", "add chain inet vpn restore { type filter hook prerouting priority mangle ; }",
				"add chain inet vpn save { type filter hook postrouting priority mangle ; }",
				"add rule inet vpn restore meta mark set ct mark", "add rule inet vpn save ct mark set meta mark",
			} {
				l.host.run("nft " + c)
			}
			serve(l.host, ":82")
			for range 2 { // the second time with what was saved
				check(t, reach{"internet", g, "198.51.100.9:80", hostUp}, reach{"internet, IPv6", g, "[fd00:1::1]:80", hostUp6},
					reach{"gateway", g, "10.89.1.1:82", "10.89.1.2"}, reach{"guest from the host", l.host, "10.89.1.2:80", "10.89.1.1"})
			}
		})
	}
}

// TestMTU is the network's own, of a bridge and its ports.
func TestMTU(t *testing.T) {
	l := newLab(t)
	n, own := testNetwork(1), testNetwork(2)
	own.MTU = 1300
	for _, c := range []struct {
		e    Endpoint
		want int
	}{{testEndpoint(n, 2), 1500}, {testEndpoint(own, 2), 1300}} {
		l.guest(c.e)
		for _, dev := range []string{c.e.Network.Device(), c.e.Device} {
			l.host.do(func() error {
				d, err := net.InterfaceByName(dev)
				if err == nil && d.MTU != c.want {
					t.Errorf("%s: MTU %d, want %d", dev, d.MTU, c.want)
				}
				return err
			})
		}
	}
}

// TestForgotten is that connections end with their guest, and that a client of a
// published port which was not, is one of it.
func TestForgotten(t *testing.T) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	g := l.guest(e)
	var client net.PacketConn
	l.lan.do(func() (err error) {
		client, err = net.ListenPacket("udp", "192.0.2.2:5000")
		return err
	})
	defer client.Close()
	// Each question keeps a flow alive that should be no more.
	answer := func(want string) (got string) {
		for end := time.Now().Add(limit); got != want && time.Now().Before(end); {
			_, _ = client.WriteTo([]byte("?"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(hostLAN+":8080")))
			_ = client.SetReadDeadline(time.Now().Add(patience))
			b := make([]byte, 100)
			n, _, _ := client.ReadFrom(b)
			got = string(b[:n])
		}
		return got
	}
	serveAs(l.host, hostLAN+":8080", "socket ")
	if got := answer("socket 192.0.2.2"); got != "socket 192.0.2.2" {
		t.Fatalf("before: %q", got)
	}
	e.Forwards = []Forward{{"udp", netip.MustParseAddrPort(hostLAN + ":8080"), 80}}
	l.host.do(func() error { return l.h.Join(e) })
	if got := answer("192.0.2.2"); got != "192.0.2.2" {
		t.Errorf("published: %q", got)
	}
	check(t, reach{"", g, "198.51.100.9:80", hostUp})
	if n := l.flows("10.89.1.2"); n == 0 {
		t.Fatal("no connection is tracked: this test could not fail")
	}
	l.host.do(func() error { return l.h.Leave(e) })
	if n := l.flows("10.89.1.2"); n != 0 {
		t.Errorf("%d connections of a guest that is no more", n)
	}
	if got := answer("socket 192.0.2.2"); got != "socket 192.0.2.2" {
		t.Errorf("after: %q", got)
	}
}

// flows counts connections with an address.
func (l *lab) flows(address string) (n int) {
	l.host.do(func() error {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range all {
			if strings.Contains(f.String(), address) {
				n++
			}
		}
		return err
	})
	return n
}

// TestTAP is a device as a VMM makes it.
func TestTAP(t *testing.T) {
	l := newLab(t)
	n := testNetwork(1)
	e, peer := testEndpoint(n, 2), testEndpoint(n, 3)
	to := l.guest(peer).wire("eth0")
	var tap *os.File
	l.host.do(func() (err error) {
		tap, err = openTAP(e.Device)
		return err
	})
	l.host.do(func() error { return l.h.Plug(e) }) // joins, too
	for _, mac := range []string{macX, e.MAC} {
		frame := ether(peer.MAC, mac, unix.ETH_P_IP, ip4("10.89.1.2", "10.89.1.3", udpHeader(9, 9, "of "+mac)))
		if _, err := tap.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	frames, found := to.until("of " + e.MAC)
	if !found {
		t.Error("what is legal does not come")
	}
	if strings.Contains(fmt.Sprintf("%s", frames), "of "+macX) {
		t.Error("another MAC address passed")
	}
	tap.Close()
	l.host.do(refusal(func() error { return l.h.Plug(e) }).refused)
	l.host.do(func() error { return l.h.Leave(e) })
}

// TestWithdraw is of an endpoint whose VM goes on: the device stays, and leads nowhere,
// until it is left, or is plugged in again.
func TestWithdraw(t *testing.T) {
	l := newLab(t)
	n := testNetwork(1)
	e, peer := testEndpoint(n, 2), testEndpoint(n, 3)
	to := l.guest(peer).wire("eth0")
	var tap *os.File
	l.host.do(func() (err error) {
		tap, err = openTAP(e.Device)
		return err
	})
	defer tap.Close()
	send := func(text string) error {
		_, err := tap.Write(ether(peer.MAC, e.MAC, unix.ETH_P_IP, ip4("10.89.1.2", "10.89.1.3", udpHeader(9, 9, text))))
		return err
	}
	l.host.do(func() error { return l.h.Plug(e) })
	if err := send("before"); err != nil {
		t.Fatal(err)
	}
	if _, found := to.until("before"); !found {
		t.Fatal("it is not in its network: this test could not fail")
	}
	for range 2 { // the second time there is nothing to be done
		l.host.do(func() error { return l.h.Withdraw(e) })
		l.host.do(func() error {
			link, err := netlink.LinkByName(e.Device)
			if err == nil && (link.Attrs().MasterIndex != 0 || link.Attrs().Flags&net.FlagUp != 0 || link.Attrs().Alias != l.h.alias(e.VM)) {
				t.Errorf("the device is %+v", link.Attrs())
			}
			return err
		})
	}
	if err := send("while it is withdrawn"); !errors.Is(err, unix.EIO) {
		t.Errorf("send a frame: %v", err)
	}
	want := contents{}
	want.add(peer)
	l.wantContents(want)
	l.host.do(func() error { return l.h.Plug(e) })
	if err := send("again"); err != nil {
		t.Fatal(err)
	}
	if frames, found := to.until("again"); !found || strings.Contains(fmt.Sprintf("%s", frames), "withdrawn") {
		t.Errorf("after it is back: %v", found)
	}
	l.host.do(func() error { return l.h.Withdraw(e) })
	l.host.do(func() error { return l.h.Leave(e) })
	if err := l.host.try(func() error { _, err := netlink.LinkByName(e.Device); return err }); err == nil {
		t.Error("the device has outlived its VM")
	}
	l.wantContents(want)
}

// TestChange publishes a port of an endpoint that is in its network.
func TestChange(t *testing.T) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	p := l.h.Place(e)
	l.host.do(func() error { return p.Join(t.Context()) })
	e.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:8080"), 80}}
	l.host.do(func() error { return p.Change(t.Context(), e) })
	want := contents{}
	want.add(e)
	l.wantContents(want)
	l.host.do(p.Leave)
}

func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// TestManyPorts is a whole range of published ports.
func TestManyPorts(t *testing.T) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	for p := range 5000 {
		at := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(10000+p))
		e.Forwards = append(e.Forwards, Forward{"tcp", at, 80}, Forward{"udp", at, 80})
	}
	g := l.guest(e)
	check(t, reach{"", l.lan, hostLAN + ":14999", client})
	check(t, reach{"", g, "198.51.100.9:80", hostUp})
	want := contents{}
	want.add(e)
	l.wantContents(want)
}

// TestGivenUp: who does not want to join any more waits for nobody, neither for that nor
// to leave. One who has joined leaves.
func TestGivenUp(t *testing.T) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	place := l.h.Place(e)
	lock, err := state.TryLock(l.h.Lock)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	given := errors.New("given up")
	ctx, giveUp := context.WithCancelCause(t.Context())
	giveUp(given)
	for name, join := range map[string]func(context.Context) error{"join": place.Join, "plug": place.Plug} {
		if err := l.host.try(func() error { return join(ctx) }); !errors.Is(err, given) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l.host.do(place.Leave)
	lock.Unlock()
	l.host.do(func() error { return place.Join(t.Context()) })
	l.host.do(place.Leave)
	l.wantLeftovers(func(string) bool { return false })
}

// BenchmarkEndpoint is the time that a network adds to the start of a VM and to its
// end, beside 20 others.
func BenchmarkEndpoint(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("bridge networks need root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	h := Host{Table: "micropod-test", Lock: filepath.Join(b.TempDir(), "lock")}
	for i := range 20 {
		if err := h.Join(testEndpoint(testNetwork(1), 10+i)); err != nil {
			b.Fatal(err)
		}
	}
	e := testEndpoint(testNetwork(1), 2)
	e.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:80"), 80}}
	b.Run("Join", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := h.Leave(e); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := h.Join(e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Leave", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := h.Join(e); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := h.Leave(e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
