package bridge

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestValidate changes one thing each time.
func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Endpoint){
		"id":                  func(e *Endpoint) { e.Network.ID = strings.Repeat("g", 64) },
		"short id":            func(e *Endpoint) { e.Network.ID = "abc" },
		"no VM":               func(e *Endpoint) { e.VM = "" },
		"VM with a space":     func(e *Endpoint) { e.VM = "a b" },
		"long VM":             func(e *Endpoint) { e.VM = strings.Repeat("a", maxVM+1) },
		"device as a path":    func(e *Endpoint) { e.Device = "../x" },
		"long device":         func(e *Endpoint) { e.Device = strings.Repeat("a", nameSize) },
		"device as a bridge":  func(e *Endpoint) { e.Device = "mp-1" },
		"MAC of a group":      func(e *Endpoint) { e.MAC = "01:00:5e:00:00:01" },
		"long MAC":            func(e *Endpoint) { e.MAC = "02:00:00:00:00:00:00:01" },
		"gateway elsewhere":   func(e *Endpoint) { e.Network.Gateway = netip.MustParseAddr("10.1.1.1") },
		"address elsewhere":   func(e *Endpoint) { e.Address = netip.MustParsePrefix("10.1.1.1/24") },
		"address of gateway":  func(e *Endpoint) { e.Address = netip.PrefixFrom(e.Network.Gateway, 24) },
		"address of network":  func(e *Endpoint) { e.Address = e.Network.Subnet },
		"prefix of another":   func(e *Endpoint) { e.Address = netip.PrefixFrom(e.Address.Addr(), 16) },
		"subnet not masked":   func(e *Endpoint) { e.Network.Subnet = netip.MustParsePrefix("10.89.1.7/24") },
		"metadata as subnet":  func(e *Endpoint) { resubnet(e, "169.254.169.0/24") },
		"loopback as subnet":  func(e *Endpoint) { resubnet(e, "127.1.1.0/24") },
		"multicast as subnet": func(e *Endpoint) { resubnet(e, "224.1.1.0/24") },
		"all as subnet":       func(e *Endpoint) { resubnet(e, "0.0.0.0/0") },
		"no address for IPv6": func(e *Endpoint) { e.Address6 = netip.Prefix{} },
		"no network for IPv6": func(e *Endpoint) { e.Network.Subnet6, e.Network.Gateway6 = netip.Prefix{}, netip.Addr{} },
		"IPv4 in IPv6": func(e *Endpoint) {
			e.Network.Subnet6, e.Network.Gateway6 = netip.MustParsePrefix("::ffff:10.0.0.0/120"), netip.MustParseAddr("::ffff:10.0.0.1")
		},
		"MTU":                func(e *Endpoint) { e.Network.MTU = 100 },
		"protocol":           func(e *Endpoint) { e.Forwards = []Forward{{"sctp", netip.MustParseAddrPort("0.0.0.0:1"), 1}} },
		"port 0":             func(e *Endpoint) { e.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:0"), 1}} },
		"guest's port 0":     func(e *Endpoint) { e.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:1"), 0}} },
		"no address to take": func(e *Endpoint) { e.Forwards = []Forward{{"tcp", netip.AddrPort{}, 1}} },
		"too many ports":     func(e *Endpoint) { e.Forwards = make([]Forward, maxForwards+1) },
	} {
		e := testEndpoint(testNetwork(1), 2)
		if err := e.validate(); err != nil {
			t.Fatalf("a good one: %v", err)
		}
		change(&e)
		if err := e.validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func resubnet(e *Endpoint, subnet string) {
	p := netip.MustParsePrefix(subnet)
	e.Network.Subnet, e.Network.Gateway, e.Address = p, p.Addr().Next(), netip.PrefixFrom(p.Addr().Next().Next(), p.Bits())
}

// TestElements is how the elements follow who comes and goes.
func TestElements(t *testing.T) {
	n, m := testNetwork(1), testNetwork(2)
	a, b, c := testEndpoint(n, 2), testEndpoint(n, 3), testEndpoint(m, 2)
	a.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:80"), 8080}}
	all := contents{}
	for _, e := range []Endpoint{a, b, c} {
		all.add(e)
	}
	if got := fmt.Sprint(all.bridges(), all.known()); got != fmt.Sprint([]string{n.Device(), m.Device()}, []string{n.Device(), m.Device()}) {
		t.Errorf("bridges %s", got)
	}
	left := all.clone()
	left.remove(func(p part) bool { return p.vm == a.VM || p.vm == c.VM })
	want := contents{}
	want.add(b)
	if d := left.minus(want); len(d) > 0 {
		t.Errorf("too much: %v", d)
	}
	if d := want.minus(left); len(d) > 0 {
		t.Errorf("too little: %v", d)
	}
	if len(all["guests"]) != 3 {
		t.Error("a clone shares what it was made of")
	}
	left.remove(func(part) bool { return true })
	if d := left.minus(contents{}); len(d) > 0 || !left.empty() {
		t.Errorf("without anybody: %v", d)
	}
}

// TestLastOwner is that a port which is published once more is the last one's,
// and that the one before takes nothing of it away.
func TestLastOwner(t *testing.T) {
	n := testNetwork(1)
	a, b := testEndpoint(n, 2), testEndpoint(n, 3)
	a.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:80"), 1}}
	b.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:80"), 2}}
	c := contents{}
	c.add(a)
	c.add(b)
	c.remove(func(p part) bool { return p.vm == a.VM })
	for _, el := range c["published_any"] {
		if el.owner != b.owner() {
			t.Errorf("of %s", el.owner)
		}
	}
	if len(c["published_any"]) != 1 {
		t.Errorf("%d elements, want 1", len(c["published_any"]))
	}
}

// TestLastAddress is a guest with the address of one that was never taken away.
func TestLastAddress(t *testing.T) {
	n := testNetwork(1)
	for name, change := range map[string]func(a, b *Endpoint){
		"IPv4": func(a, b *Endpoint) { b.Address = a.Address },
		"IPv6": func(a, b *Endpoint) { b.Address6 = a.Address6 },
	} {
		a, b, c := testEndpoint(n, 2), testEndpoint(n, 3), contents{}
		a.Forwards = []Forward{{"tcp", netip.MustParseAddrPort("0.0.0.0:80"), 1}}
		change(&a, &b)
		c.add(a)
		c.add(b)
		if got := c.parts(); len(got) != 1 || got[0] != b.part() || len(c["published_any"]) != 0 {
			t.Errorf("%s: %v, published %v", name, got, c["published_any"])
		}
	}
}

// TestKnows: whose device is known is among those whose device leave takes away.
func TestKnows(t *testing.T) {
	joined, other, same := testEndpoint(testNetwork(1), 2), testEndpoint(testNetwork(1), 3), testEndpoint(testNetwork(1), 4)
	same.Device = joined.Device
	c := contents{}
	c.add(joined)
	for name, e := range map[string]Endpoint{"joined": joined, "another": other, "another's device": same} {
		got, among := c.knows(e), slices.Contains(c.parts(), e.part())
		if want := name == "joined"; got != want || among != want {
			t.Errorf("%s is known: %v, is among the parts: %v, want %v", name, got, among, want)
		}
	}
}

func TestAfter(t *testing.T) {
	for p, want := range map[string]string{
		"10.0.0.0/8": "11.0.0.0", "192.0.2.7/32": "192.0.2.8", "0.0.0.0/8": "1.0.0.0", "fd00:42::42/128": "fd00:42::43", "fec0::/10": "ff00::",
	} {
		if got := after(netip.MustParsePrefix(p)).String(); got != want {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}
