package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is a network namespace. It ends with the test.
type space struct {
	t *testing.T
	f *os.File
}

func newSpace(t *testing.T) *space {
	t.Helper()
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // for good: the thread ends here
		defer close(made)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("network namespace: %v", err)
			return
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		if err != nil {
			t.Error(err)
			return
		}
		made <- f
	}()
	f := <-made
	if f == nil {
		t.FailNow()
	}
	t.Cleanup(func() { f.Close() })
	s := &space{t, f}
	s.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return s
}

// try runs fn in the namespace, on a thread of its own.
func (s *space) try(fn func() error) error {
	result := make(chan error)
	go func() {
		err := errors.New("the test was ended in it")
		defer func() { result <- err }()
		runtime.LockOSThread()
		if err = unix.Setns(int(s.f.Fd()), unix.CLONE_NEWNET); err == nil {
			err = fn()
		}
	}()
	return <-result
}

func (s *space) do(fn func() error) {
	s.t.Helper()
	if err := s.try(fn); err != nil {
		s.t.Fatal(err)
	}
}

// run is the output of a command in the namespace.
func (s *space) run(command string) string {
	s.t.Helper()
	var out []byte
	s.do(func() (err error) {
		args := strings.Fields(command)
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s", command, err, out)
		}
		return err
	})
	return string(out)
}

func (s *space) sysctl(name, value string) {
	s.t.Helper()
	s.do(func() error { return sysctl(name, value) })
}

// link is an end of a cable in a namespace.
type link struct {
	in        *space
	name, mac string
	addresses []string
}

// cable joins two namespaces.
func cable(t *testing.T, a, b link) {
	t.Helper()
	a.in.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a.name
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.name, PeerNamespace: netlink.NsFd(b.in.f.Fd())}
		return netlink.LinkAdd(veth)
	})
	for _, l := range []link{a, b} {
		l.in.do(l.up)
	}
	for _, l := range []link{a, b} {
		l.in.awaitUp(l.name)
	}
}

func (l link) up() error {
	dev, err := netlink.LinkByName(l.name)
	if err != nil {
		return err
	}
	if l.mac != "" {
		mac, err := net.ParseMAC(l.mac)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetHardwareAddr(dev, mac); err != nil {
			return err
		}
	}
	if err := sysctl("ipv6/conf/"+l.name+"/accept_dad", "0"); err != nil {
		return err
	}
	for _, a := range l.addresses {
		if err := addAddress(dev, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(dev)
}

func addAddress(dev netlink.Link, text string) error {
	a, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	return netlink.AddrAdd(dev, a)
}

// awaitUp waits until frames pass links: the kernel notices a carrier later.
func (s *space) awaitUp(names ...string) {
	s.t.Helper()
	s.do(func() error {
		for _, name := range names {
			for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
				dev, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				if dev.Attrs().OperState == netlink.OperUp {
					break
				}
				if time.Now().After(end) {
					return fmt.Errorf("%s is %v", name, dev.Attrs().OperState)
				}
			}
		}
		return nil
	})
}

func (s *space) route(to, via string) {
	s.t.Helper()
	s.do(func() error {
		r := &netlink.Route{Gw: net.ParseIP(via)}
		if to != "" {
			_, dst, err := net.ParseCIDR(to)
			if err != nil {
				return err
			}
			r.Dst = dst
		}
		return netlink.RouteAdd(r)
	})
}

// lab is a host between an uplink, behind which is the internet, and a LAN.
type lab struct {
	t                   *testing.T
	host, internet, lan *space
	// h is what is tested; its methods run in the host's namespace.
	h Host
}

// Addresses of the lab.
const (
	hostUp, hostUp6     = "203.0.113.2", "fd00:1::2"
	internet, internet6 = "203.0.113.1", "fd00:1::1"
	hostLAN, hostLAN6   = "192.0.2.1", "fd00:2::1"
	client, client6     = "192.0.2.2", "fd00:2::2"
)

// newLab needs root, and skips where there is none.
func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces, and bridge networks in them, need root")
	}
	l := &lab{t: t, host: newSpace(t), internet: newSpace(t), lan: newSpace(t), h: newHost(t)}
	cable(t, link{l.host, "up0", "", []string{hostUp + "/24", hostUp6 + "/64"}},
		link{l.internet, "eth0", "", []string{internet + "/24", internet6 + "/64"}})
	cable(t, link{l.host, "lan0", "", []string{hostLAN + "/24", hostLAN6 + "/64"}},
		link{l.lan, "eth0", "", []string{client + "/24", client6 + "/64"}})
	// All of the world is there, metadata too: what is not reached is denied.
	remote := []string{"198.51.100.9/32", "169.254.169.254/32", "100.100.100.200/32", "fd00:ec2::254/128"}
	for _, a := range remote {
		l.internet.do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return addAddress(lo, a)
		})
	}
	for _, via := range []string{internet, internet6} {
		l.host.route("", via)
	}
	for _, via := range []string{hostLAN, hostLAN6} {
		l.lan.route("", via)
	}
	// The internet would answer a guest's own address too: it is to see the host's.
	for _, via := range []string{hostUp, hostUp6} {
		l.internet.route("", via)
	}
	serve(l.lan, ":80")
	for _, a := range append(remote, internet+"/24", internet6+"/64") {
		serve(l.internet, netip.AddrPortFrom(netip.MustParsePrefix(a).Addr(), 80).String())
	}
	// As distributions have it: a way back to the source must be there.
	for _, link := range []string{"up0", "lan0"} {
		l.host.sysctl("ipv4/conf/"+link+"/rp_filter", "1")
	}
	l.bridgeFilter(false)
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		l.host.sysctl(name, "0")
	}
	return l
}

func newHost(t *testing.T) Host {
	return Host{Table: "micropod-test", Lock: filepath.Join(t.TempDir(), "lock")}
}

// bridgeFilter makes frames within a bridge go through the tables of IP too, or
// not, as br_netfilter does on hosts with Docker or Kubernetes.
func (l *lab) bridgeFilter(on bool) {
	l.t.Helper()
	for _, f := range []string{"iptables", "ip6tables"} {
		name := "bridge/bridge-nf-call-" + f
		if _, err := os.Stat(filepath.Join(sysctlDir, name)); err != nil && !on {
			return // the module is not there
		}
		l.host.sysctl(name, flag(on))
	}
}

// testNetwork is the nth of ours.
func testNetwork(n int) Network {
	subnet := netip.MustParsePrefix(fmt.Sprintf("10.89.%d.0/24", n))
	subnet6 := netip.MustParsePrefix(fmt.Sprintf("fd00:89:%d::/64", n))
	return Network{
		ID:     fmt.Sprintf("%012x%052x", n, 0),
		Subnet: subnet, Gateway: subnet.Addr().Next(), Subnet6: subnet6, Gateway6: subnet6.Addr().Next(),
	}
}

// testEndpoint is guest i of a network: its last byte.
func testEndpoint(n Network, i int) Endpoint {
	a4, a6 := n.Subnet.Addr().As4(), n.Subnet6.Addr().As16()
	a4[3], a6[15] = byte(i), byte(i)
	return Endpoint{
		Network: n, VM: fmt.Sprintf("vm%d-%d", a4[2], i), Device: fmt.Sprintf("tap%d-%d", a4[2], i),
		MAC:     fmt.Sprintf("02:42:0a:59:%02x:%02x", a4[2], i),
		Address: netip.PrefixFrom(netip.AddrFrom4(a4), 24), Address6: netip.PrefixFrom(netip.AddrFrom16(a6), 64),
	}
}

// guest starts a guest: its namespace has the other end of the device, as a VM
// would have.
func (l *lab) guest(e Endpoint) *space {
	l.t.Helper()
	g := newSpace(l.t)
	l.host.do(func() error { return l.h.Join(e) })
	cable(l.t, link{l.host, e.Device, "", nil}, link{g, "eth0", e.MAC, []string{e.Address.String(), e.Address6.String()}})
	l.host.do(func() error { return l.h.Plug(e) })
	l.host.awaitUp(e.Device, e.Network.Device())
	g.awaitUp("eth0")
	for _, via := range []netip.Addr{e.Network.Gateway, e.Network.Gateway6} {
		g.route("", via.String())
	}
	serve(g, ":80")
	return g
}
