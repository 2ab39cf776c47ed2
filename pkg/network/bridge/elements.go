package bridge

import (
	"bytes"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// element of a set. Owner is its comment.
type element struct {
	value []byte
	owner string
}

// contents are the elements of the sets by the set's name, and by their key.
type contents map[string]map[string]element

func (c contents) put(set string, key, value []byte, owner string) {
	if c[set] == nil {
		c[set] = map[string]element{}
	}
	c[set][string(key)] = element{value, owner}
}

func (c contents) clone() contents {
	out := contents{}
	for set, elements := range c {
		out[set] = maps.Clone(elements)
	}
	return out
}

// key puts parts side by side, each in whole registers.
func key(parts ...[]byte) []byte {
	var k []byte
	for _, p := range parts {
		k = append(k, p...)
		k = append(k, make([]byte, 4*words(uint32(len(p)))-uint32(len(p)))...)
	}
	return k
}

func portBytes(p uint16) []byte { return []byte{byte(p >> 8), byte(p)} }

func protocolBytes(proto string) []byte {
	if proto == "udp" {
		return []byte{unix.IPPROTO_UDP}
	}
	return []byte{unix.IPPROTO_TCP}
}

// owner is the comment of an endpoint's elements: the VM, then the device.
func (e Endpoint) owner() string { return e.VM + " " + e.Device }

// part is an endpoint of which a comment tells.
type part struct{ vm, device string }

func (e Endpoint) part() part { return part{e.VM, e.Device} }

func parsePart(owner string) (part, bool) {
	vm, device, ok := strings.Cut(owner, " ")
	return part{vm, device}, ok
}

// add puts an endpoint's elements. What it had before is gone, and what another
// one has under the same key: an address, a device or a port has one owner, the
// last who got it. Of who had the address nothing is left: his published ports would
// lead to this one.
func (c contents) add(e Endpoint) {
	old := append(c.displaced(e), e.part())
	c.remove(func(p part) bool { return slices.Contains(old, p) })
	c.addNetwork(e.Network)
	c.addSources(e)
	for _, f := range e.Forwards {
		c.addForward(e, f)
	}
	if e.NameServer != 0 {
		c.addNameServer(e)
	}
}

// displaced are those who have an address of e.
func (c contents) displaced(e Endpoint) []part {
	var all []part
	for set, k := range map[string][]byte{
		"guests": key(name(e.Network.Device()), e.Address.Addr().AsSlice()), "guests6": key(name(e.Network.Device()), e.Address6.Addr().AsSlice()),
	} {
		if p, ok := parsePart(c[set][string(k)].owner); ok && p != e.part() {
			all = append(all, p)
		}
	}
	return all
}

func (c contents) addNetwork(n Network) {
	device := name(n.Device())
	put := func(set string, parts ...[]byte) { c.put(set, key(parts...), nil, n.ID) }
	put("bridges", device)
	put("pairs", device, device)
	if n.Internal {
		put("internal", device)
	}
	put("gateways", device, n.Gateway.AsSlice())
	put("addresses", n.Gateway.AsSlice())
	if n.Gateway6.IsValid() {
		put("gateways6", device, n.Gateway6.AsSlice())
		put("addresses6", n.Gateway6.AsSlice())
	}
}

func (c contents) addSources(e Endpoint) {
	mac, _ := net.ParseMAC(e.MAC) // validated
	port, device := name(e.Device), name(e.Network.Device())
	put := func(set string, parts ...[]byte) { c.put(set, key(parts...), nil, e.owner()) }
	put("ports", port)
	put("devices", port)
	ip := e.Address.Addr().AsSlice()
	put("sources", port, mac, ip)
	put("guests", device, ip)
	if !e.Network.Internal {
		put("masquerade", ip)
	}
	if !e.Address6.IsValid() {
		return
	}
	ip6 := e.Address6.Addr().AsSlice()
	for _, a := range [][]byte{ip6, linkLocal(mac).AsSlice()} {
		put("sources6", port, mac, a)
		put("guests6", device, a)
	}
	if !e.Network.Internal {
		put("masquerade6", ip6)
	}
}

// linkLocal is the address that Linux makes of a device's: RFC 4291, appendix A.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

func (c contents) addForward(e Endpoint, f Forward) {
	host, guest, six := f.Host.Addr(), e.Address.Addr(), ""
	if host.Is6() {
		guest, six = e.Address6.Addr(), "6"
	}
	at, proto, port := host.AsSlice(), protocolBytes(f.Proto), portBytes(f.Host.Port())
	to := key(guest.AsSlice(), portBytes(f.Guest))
	switch {
	case host.IsLoopback():
		c.put("loopback"+six, key(proto, at, port), nil, e.owner())
	case e.Network.Internal || !guest.IsValid():
		// Nobody comes in, or not in this way: there is the supervisor's socket.
	case host.IsUnspecified():
		c.put("published_any"+six, key(proto, port), to, e.owner())
		c.put("own_any"+six, key(guest.AsSlice(), proto, port), nil, e.owner())
	default:
		c.put("published"+six, key(proto, at, port), to, e.owner())
		c.put("own"+six, key(guest.AsSlice(), proto, at, port), nil, e.owner())
	}
}

func (c contents) addNameServer(e Endpoint) {
	c.addNameServerAt(e, e.Address.Addr(), e.Network.Gateway, "")
	if e.Address6.IsValid() {
		c.addNameServerAt(e, e.Address6.Addr(), e.Network.Gateway6, "6")
	}
}

// addNameServerAt is addNameServer for the addresses of one family.
func (c contents) addNameServerAt(e Endpoint, from, to netip.Addr, six string) {
	const domain = 53
	device, guest, gateway, port := name(e.Network.Device()), from.AsSlice(), to.AsSlice(), portBytes(e.NameServer)
	for _, proto := range [][]byte{{unix.IPPROTO_TCP}, {unix.IPPROTO_UDP}} {
		c.put("names"+six, key(device, guest, proto, portBytes(domain)), key(gateway, port), e.owner())
		c.put("asking"+six, key(device, guest, proto, port), nil, e.owner())
		c.put("nameservers"+six, key(proto, gateway, port), nil, e.owner())
	}
}

// remove takes away the endpoints that gone is true of, and networks without
// any.
func (c contents) remove(gone func(part) bool) {
	for _, s := range sets() {
		if s.ofNetwork {
			continue
		}
		maps.DeleteFunc(c[s.name], func(_ string, el element) bool {
			p, ok := parsePart(el.owner)
			return ok && gone(p)
		})
	}
	used := c.bridges()
	networks := map[string]bool{}
	for k, el := range c["bridges"] {
		networks[el.owner] = slices.Contains(used, deviceName([]byte(k)))
	}
	for _, s := range sets() {
		if s.ofNetwork {
			maps.DeleteFunc(c[s.name], func(_ string, el element) bool { return !networks[el.owner] })
		}
	}
}

// bridges are those that have an endpoint.
func (c contents) bridges() []string {
	found := map[string]bool{}
	for k := range c["guests"] {
		found[deviceName([]byte(k))] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// known are the bridges that there are elements of, with endpoints or without.
func (c contents) known() []string {
	var all []string
	for k := range c["bridges"] {
		all = append(all, deviceName([]byte(k)))
	}
	slices.Sort(all)
	return all
}

// parts are the endpoints that there are elements of.
func (c contents) parts() []part {
	found := map[part]bool{}
	for _, elements := range c {
		for _, el := range elements {
			if p, ok := parsePart(el.owner); ok {
				found[p] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b part) int {
		return strings.Compare(a.vm+" "+a.device, b.vm+" "+b.device)
	})
}

// knows reports whether an element is of an endpoint's device: then that is among
// parts.
func (c contents) knows(e Endpoint) bool {
	return c["ports"][string(key(name(e.Device)))].owner == e.owner()
}

// addresses are those of the guests that of is true of.
func (c contents) addresses(of func(part) bool) []netip.Addr {
	var all []netip.Addr
	for _, set := range []string{"guests", "guests6"} {
		for k, el := range c[set] {
			p, ok := parsePart(el.owner)
			a, valid := netip.AddrFromSlice([]byte(k)[min(nameSize, len(k)):])
			if ok && valid && of(p) && !a.IsLinkLocalUnicast() {
				all = append(all, a)
			}
		}
	}
	return all
}

// deviceName is the name with which a key begins.
func deviceName(k []byte) string {
	n, _, _ := bytes.Cut(k[:min(nameSize, len(k))], []byte{0})
	return string(n)
}

// minus are the elements of c that other does not have, or has otherwise.
func (c contents) minus(other contents) contents {
	out := contents{}
	for set, elements := range c {
		for k, el := range elements {
			o, ok := other[set][k]
			if !ok || o.owner != el.owner || !bytes.Equal(o.value, el.value) {
				out.put(set, []byte(k), el.value, el.owner)
			}
		}
	}
	return out
}

func (c contents) empty() bool { return len(c["guests"]) == 0 }
