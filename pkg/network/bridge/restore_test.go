package bridge

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestClosed flushes the firewall in each way: nothing is open, and Restore
// mends it.
func TestClosed(t *testing.T) {
	for name, filtered := range map[string]bool{"bridge": false, "br_netfilter": true} {
		for _, flush := range []string{"flush ruleset", "delete table bridge micropod-test", "delete table inet micropod-test"} {
			t.Run(name+" "+flush, func(t *testing.T) {
				t.Parallel()
				testClosed(t, filtered, flush)
			})
		}
	}
}

func testClosed(t *testing.T, filtered bool, flush string) {
	l := newLab(t)
	l.bridgeFilter(filtered)
	e, other := testEndpoint(testNetwork(1), 2), testEndpoint(testNetwork(2), 2)
	e.Forwards = []Forward{
		{"tcp", netip.MustParseAddrPort(hostLAN + ":8080"), 80}, {"udp", netip.MustParseAddrPort(hostLAN + ":8080"), 80},
	}
	g, o := l.guest(e), l.guest(other)
	works := func() {
		t.Helper()
		check(t, reach{"internet", g, "198.51.100.9:80", hostUp}, reach{"internet, IPv6", g, "[fd00:1::1]:80", hostUp6},
			reach{"internet, another network", o, "198.51.100.9:80", hostUp}, reach{"published", l.lan, hostLAN + ":8080", client})
	}
	works()
	l.host.run("nft " + flush)
	check(t, reach{"internet", g, "198.51.100.9:80", ""}, reach{"internet, IPv6", g, "[fd00:1::1]:80", ""},
		reach{"metadata", g, "169.254.169.254:80", ""}, reach{"LAN", g, client + ":80", ""}, reach{"another network", g, "10.89.2.2:80", ""},
		reach{"guest from the LAN", l.lan, "10.89.1.2:80", ""}, reach{"published", l.lan, hostLAN + ":8080", ""},
		reach{"guest from the host", l.host, "10.89.1.2:80", ""})
	closedToPackets(t, l, g)
	l.wantIntact(false, e, other)
	l.restore(e, other)
	l.wantIntact(true, e, other)
	l.wantIntact(false, e)
	works()
	check(t, reach{"guest from the LAN", l.lan, "10.89.1.2:80", ""})
}

func (l *lab) restore(all ...Endpoint) {
	l.t.Helper()
	l.host.do(func() error { return l.h.Restore(func() ([]Endpoint, error) { return all, nil }, nobody) })
}

func (l *lab) wantIntact(want bool, all ...Endpoint) {
	l.t.Helper()
	l.host.do(func() error {
		got, err := l.h.Intact(func() ([]Endpoint, error) { return all, nil }, nobody)
		if got != want {
			l.t.Errorf("intact: %v, want %v", got, want)
		}
		return err
	})
}

// closedToPackets is that not even one packet gets anywhere.
func closedToPackets(t *testing.T, l *lab, g *space) {
	t.Helper()
	up, in := l.internet.wire("eth0"), g.wire("eth0")
	gateway := l.h.mac(testNetwork(1).Device()).String()
	in.send(ether(gateway, mac2, unix.ETH_P_IP, ip4("10.89.1.2", "198.51.100.9", udpHeader(9, 9, "outward"))))
	in.send(ether(gateway, mac2, unix.ETH_P_IPV6, ip6("fd00:89:1::2", "fd00:1::1", unix.IPPROTO_UDP, udpHeader(9, 9, "outward"))))
	if _, found := up.came("outward"); found {
		t.Error("a packet of a guest leaves the host")
	}
	router := l.host.macOf("lan0")
	lan := l.lan.wire("eth0")
	lan.send(ether(router, macX, unix.ETH_P_IP, ip4(client, "10.89.1.2", udpHeader(9, 9, "inward"))))
	lan.send(ether(router, macX, unix.ETH_P_IPV6, ip6(client6, "fd00:89:1::2", unix.IPPROTO_UDP, udpHeader(9, 9, "inward"))))
	if _, found := in.came("inward"); found {
		t.Error("a packet of the LAN comes to a guest")
	}
}

// ofKernel is what the kernel makes of an IPv6 address, or of a link that is up, in its
// own time: seconds later, where it looks for duplicates first.
var ofKernel = regexp.MustCompile(`^ip route show table all: (local|anycast|multicast) [0-9a-f]*:|^ip -oneline address: .* inet6 fe80:`)

// snapshot is all that there is of ours, as other programs see it. The lab's own
// links are left out: they may still be coming up.
func (l *lab) snapshot() string {
	var all []string
	for _, c := range []string{"nft list ruleset", "ip -oneline link", "ip -oneline address", "ip rule", "ip -6 rule", "ip route show table all", "tc qdisc"} {
		for line := range strings.Lines(l.host.run(c)) {
			line = c + ": " + strings.TrimRight(line, "\n")
			if !strings.Contains(line, " up0") && !strings.Contains(line, " lan0") && !ofKernel.MatchString(line) {
				all = append(all, line)
			}
		}
	}
	return strings.Join(all, "\n")
}

// wantSnapshot compares with what there was.
func (l *lab) wantSnapshot(when, want string) {
	l.t.Helper()
	got := l.snapshot()
	for end := time.Now().Add(limit); got != want && time.Now().Before(end); got = l.snapshot() {
		time.Sleep(100 * time.Millisecond) // a link's state follows
	}
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, s := range a {
		if !slices.Contains(b, s) {
			l.t.Errorf("%s there is: %s", when, s)
		}
	}
	for _, s := range b {
		if !slices.Contains(a, s) {
			l.t.Errorf("%s there is not: %s", when, s)
		}
	}
}

// TestLeave is that the last one leaves nothing, and any other one the rest.
func TestLeave(t *testing.T) {
	l := newLab(t)
	l.host.run("nft add table inet someone")
	before := l.snapshot()
	n := testNetwork(1)
	a, b := testEndpoint(n, 2), testEndpoint(n, 3)
	a.NameServer, a.Forwards = 5301, []Forward{
		{"tcp", netip.MustParseAddrPort("0.0.0.0:8080"), 80}, {"udp", netip.MustParseAddrPort("[::]:8080"), 80},
		{"tcp", netip.MustParseAddrPort("127.0.0.1:8080"), 80}, {"tcp", netip.MustParseAddrPort(hostLAN + ":8080"), 80},
	}
	l.host.do(func() error { return l.h.Join(b) })
	one := l.snapshot()
	for range 2 { // again is no error, and changes nothing
		l.host.do(func() error { return l.h.Join(a) })
	}
	if two := l.snapshot(); two == one || !strings.Contains(two, a.owner()) {
		t.Errorf("nothing is there of the one who joined:\n%s", two)
	}
	for range 2 {
		l.host.do(func() error { return l.h.Leave(a) })
	}
	l.wantSnapshot("after one of two left", one)
	for range 2 {
		l.host.do(func() error { return l.h.Leave(b) })
	}
	l.wantSnapshot("after the last one left", before)
	l.wantIntact(true)
}

// TestLeaveAfterFlush keeps the bridge of the others.
func TestLeaveAfterFlush(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	n := testNetwork(1)
	a, b := testEndpoint(n, 2), testEndpoint(n, 3)
	l.guest(a)
	g := l.guest(b)
	l.host.run("nft flush ruleset")
	l.host.do(func() error { return l.h.Leave(a) })
	l.host.do(func() error { return l.h.Remove(nobody, nobody) })
	l.restore(b)
	check(t, reach{"internet", g, "198.51.100.9:80", hostUp})
	for _, dev := range []string{a.Device, b.Device} { // as VMs that end do
		l.host.run("ip link del " + dev)
	}
	l.host.do(func() error { return l.h.Leave(b) })
	l.wantSnapshot("in the end", before)
}

// TestConnectionsGoOn while all is made anew.
func TestConnectionsGoOn(t *testing.T) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	g := l.guest(e)
	var server net.Listener
	l.internet.do(func() (err error) {
		server, err = net.Listen("tcp", "198.51.100.9:81")
		return err
	})
	defer server.Close()
	var inside, outside net.Conn
	g.do(func() (err error) {
		inside, err = net.DialTimeout("tcp", server.Addr().String(), limit)
		return err
	})
	defer inside.Close()
	outside, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	for _, change := range []func(){func() {}, func() { l.restore(e) }, func() { l.host.run("nft flush ruleset"); l.restore(e) }} {
		change()
		for _, way := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
			_ = way[1].SetDeadline(time.Now().Add(limit))
			if _, err := way[0].Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			if _, err := way[1].Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRestoreBridge is after somebody deleted a bridge, and after VMs ended of
// which nobody took leave.
func TestRestoreBridge(t *testing.T) {
	l := newLab(t)
	e, gone := testEndpoint(testNetwork(1), 2), testEndpoint(testNetwork(2), 2)
	g := l.guest(e)
	l.host.do(func() error { return l.h.Join(gone) })
	l.host.run("ip link del " + e.Network.Device())
	l.wantIntact(false, e, gone)
	check(t, reach{"internet", g, "198.51.100.9:80", ""})
	l.restore(e)
	check(t, reach{"internet", g, "198.51.100.9:80", hostUp})
	if got := l.snapshot(); strings.Contains(got, gone.VM) || strings.Contains(got, gone.Network.Device()) {
		t.Errorf("what was there of others still is:\n%s", got)
	}
}

// TestIntactBetween is that those who are on their way up or down are no reason to
// make all anew: they have what they need, a part of it or nothing.
func TestIntactBetween(t *testing.T) {
	l := newLab(t)
	n := testNetwork(1)
	running, starting, elsewhere := testEndpoint(n, 2), testEndpoint(n, 3), testEndpoint(testNetwork(2), 2)
	l.wantIntact(true, starting)
	l.guest(running)
	l.wantIntact(true, running, starting, elsewhere)
	// Its VMM is quicker than its rules.
	cable(t, link{l.host, starting.Device, "", nil}, link{newSpace(t), "eth0", starting.MAC, nil})
	l.wantIntact(true, running, starting, elsewhere)
	for _, e := range []Endpoint{starting, elsewhere} {
		l.host.do(func() error { return l.h.Join(e) })
	}
	l.wantIntact(true, running, starting, elsewhere)
	l.wantIntact(false, running, starting)
	l.wantIntact(false, running, elsewhere)
	l.host.run("nft flush set inet micropod-test guests")
	l.wantIntact(false, running, starting, elsewhere)
	l.restore(running, starting)
	l.wantIntact(true, running, starting, elsewhere)
	l.host.run("nft flush ruleset")
	l.wantIntact(false, running, starting)
	l.wantIntact(true, testEndpoint(n, 4)) // whoever joins makes the rules
	l.wantIntact(false, starting)          // Restore has plugged its device in
}

// TestJoinMends is that a rule which somebody deleted is there again after what
// comes next, whoever it is of.
func TestJoinMends(t *testing.T) {
	l := newLab(t)
	a, b := testEndpoint(testNetwork(1), 2), testEndpoint(testNetwork(2), 2)
	l.guest(a)
	l.guest(b)
	want := l.snapshot()
	for _, c := range []string{
		"flush chain inet micropod-test forward", "delete chain inet micropod-test leave",
		"delete table bridge micropod-test",
	} {
		l.host.run("nft flush chain inet micropod-test forward")
		l.host.run("nft " + c)
		l.wantIntact(false, a, b)
		l.host.do(func() error { return l.h.Join(b) })
		if c != "delete table bridge micropod-test" { // with it the elements are gone that it had of others
			l.wantSnapshot("after Join", want)
		}
		l.restore(a, b)
	}
}

// TestPlugWithoutALook is that Plug looks for what Join has left only where something
// may have changed since, and that then it makes what lacks.
func TestPlugWithoutALook(t *testing.T) {
	for change, known := range map[string]bool{
		"": true, "nft flush ruleset": false, "nft add table inet another": false, "ip link del BRIDGE": false, "ip link set BRIDGE down": false,
	} {
		t.Run(change, func(t *testing.T) {
			l := newLab(t)
			e := testEndpoint(testNetwork(1), 2)
			place := l.h.Place(e)
			l.host.do(func() error { return place.Join(t.Context()) })
			cable(t, link{l.host, e.Device, "", nil}, link{newSpace(t), "eth0", e.MAC, nil})
			if change != "" {
				l.host.run(strings.ReplaceAll(change, "BRIDGE", e.Network.Device()))
			}
			l.host.do(func() error {
				as, err := place.asJoined()
				if (as != nil) != known {
					t.Errorf("as Join has left it: %v, want %v", as, known)
				}
				return err
			})
			l.host.do(func() error { return place.Plug(t.Context()) })
			l.wantIntact(true, e)
			for device, master := range map[string]string{e.Network.Device(): "", e.Device: "master " + e.Network.Device()} {
				if got := l.host.run("ip link show up dev " + device); !strings.Contains(got, device) || !strings.Contains(got, master) {
					t.Errorf("%s is not up, or not in its bridge: %q", device, got)
				}
			}
		})
	}
}
