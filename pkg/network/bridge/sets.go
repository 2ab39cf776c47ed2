package bridge

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/micropod/micropod/pkg/network/denied"
)

// set is a set of the tables, or a map when it has data.
type set struct {
	family nftables.TableFamily
	name   string
	key    []nftables.SetDatatype
	data   []nftables.SetDatatype
	// ofNetwork sets have elements that are there while a network has endpoints,
	// with the network's id as their comment; the others' elements are of an
	// endpoint, and say so.
	ofNetwork bool
	// ranges, where there are any, are all that the set ever has.
	ranges []netip.Prefix
}

// sets are all of the tables'.
func sets() []set {
	const l2, l3 = nftables.TableFamilyBridge, nftables.TableFamilyINet
	device, ether := nftables.TypeIFName, nftables.TypeEtherAddr
	ip4, ip6 := nftables.TypeIPAddr, nftables.TypeIP6Addr
	proto, service := nftables.TypeInetProto, nftables.TypeInetService
	key := func(t ...nftables.SetDatatype) []nftables.SetDatatype { return t }
	to4, to6 := key(ip4, service), key(ip6, service)
	return []set{
		{family: l2, name: "ports", key: key(device)},
		{family: l2, name: "sources", key: key(device, ether, ip4)},
		{family: l2, name: "sources6", key: key(device, ether, ip6)},

		{family: l3, name: "bridges", key: key(device), ofNetwork: true},
		{family: l3, name: "pairs", key: key(device, device), ofNetwork: true},
		{family: l3, name: "internal", key: key(device), ofNetwork: true},
		{family: l3, name: "gateways", key: key(device, ip4), ofNetwork: true},
		{family: l3, name: "gateways6", key: key(device, ip6), ofNetwork: true},
		{family: l3, name: "addresses", key: key(ip4), ofNetwork: true},
		{family: l3, name: "addresses6", key: key(ip6), ofNetwork: true},

		{family: l3, name: "devices", key: key(device)},
		{family: l3, name: "guests", key: key(device, ip4)},
		{family: l3, name: "guests6", key: key(device, ip6)},
		{family: l3, name: "masquerade", key: key(ip4)},
		{family: l3, name: "masquerade6", key: key(ip6)},
		{family: l3, name: "published", key: key(proto, ip4, service), data: to4},
		{family: l3, name: "published6", key: key(proto, ip6, service), data: to6},
		{family: l3, name: "published_any", key: key(proto, service), data: to4},
		{family: l3, name: "published_any6", key: key(proto, service), data: to6},
		{family: l3, name: "own", key: key(ip4, proto, ip4, service)},
		{family: l3, name: "own6", key: key(ip6, proto, ip6, service)},
		{family: l3, name: "own_any", key: key(ip4, proto, service)},
		{family: l3, name: "own_any6", key: key(ip6, proto, service)},
		{family: l3, name: "loopback", key: key(proto, ip4, service)},
		{family: l3, name: "loopback6", key: key(proto, ip6, service)},
		{family: l3, name: "names", key: key(device, ip4, proto, service), data: to4},
		{family: l3, name: "names6", key: key(device, ip6, proto, service), data: to6},
		{family: l3, name: "asking", key: key(device, ip4, proto, service)},
		{family: l3, name: "asking6", key: key(device, ip6, proto, service)},
		{family: l3, name: "nameservers", key: key(proto, ip4, service)},
		{family: l3, name: "nameservers6", key: key(proto, ip6, service)},

		{family: l3, name: "denied", key: key(ip4), ranges: deniedOf(false)},
		{family: l3, name: "denied6", key: key(ip6), ranges: deniedOf(true)},
	}
}

// deniedOf are the targets of one family that no guest reaches. Multicast goes
// nowhere of itself.
func deniedOf(six bool) []netip.Prefix {
	return slices.DeleteFunc(denied.Targets(), func(p netip.Prefix) bool { return p.Addr().Is6() != six })
}

// datatype is the one of several, side by side.
func datatype(types []nftables.SetDatatype) (nftables.SetDatatype, error) {
	if len(types) == 1 {
		return types[0], nil
	}
	return nftables.ConcatSetType(types...)
}

// in is the set as the kernel is told of it, in table t.
func (s set) in(t *nftables.Table) (*nftables.Set, error) {
	key, err := datatype(s.key)
	if err != nil {
		return nil, err
	}
	out := &nftables.Set{
		Table: t, Name: s.name, KeyType: key, Concatenation: len(s.key) > 1,
		IsMap: s.data != nil, Interval: s.ranges != nil,
	}
	if len(s.key) == 1 && s.key[0].Name == nftables.TypeIFName.Name {
		out.KeyByteOrder = binaryutil.NativeEndian // for who lists it: a name is no number
	}
	if s.data != nil {
		if out.DataType, err = datatype(s.data); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// bounds are the ranges as an interval set has them: where one begins, and
// where it has ended.
func (s set) bounds() []nftables.SetElement {
	var all []nftables.SetElement
	for _, p := range s.ranges {
		all = append(all, nftables.SetElement{Key: p.Addr().AsSlice()},
			nftables.SetElement{Key: after(p).AsSlice(), IntervalEnd: true})
	}
	return all
}

// after is the first address behind p.
func after(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last.Next()
}
