// Package ipam chooses subnets and addresses, as docker does: the lowest that is
// free. It keeps nothing and asks nobody: what is taken is in the records of its
// callers. All of it is pure but for the random prefixes of IPv6.
package ipam

import (
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
)

// Errors that callers tell apart with errors.Is, in docker's words.
var (
	// ErrNoSubnet says that every pool is in use.
	ErrNoSubnet = errors.New("all predefined address pools have been fully subnetted")
	// ErrFull says that a subnet has no free address.
	ErrFull = errors.New("no available addresses")
)

// pool is a network that subnets of one size are cut from.
type pool struct {
	from netip.Prefix
	bits int
}

// pools are docker's, in its order.
func pools() []pool {
	return []pool{
		{netip.MustParsePrefix("172.17.0.0/16"), 16},
		{netip.MustParsePrefix("172.18.0.0/16"), 16},
		{netip.MustParsePrefix("172.19.0.0/16"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/14"), 16},
		{netip.MustParsePrefix("172.28.0.0/14"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
	}
}

// Subnet is the first IPv4 subnet of the pools that overlaps none of taken.
func Subnet(taken []netip.Prefix) (netip.Prefix, error) {
	for _, p := range pools() {
		for at := p.from.Addr(); p.from.Contains(at); at = add(at, 1<<(32-p.bits)) {
			if s := netip.PrefixFrom(at, p.bits); !Overlaps(s, taken) {
				return s, nil
			}
		}
	}
	return netip.Prefix{}, ErrNoSubnet
}

// Subnet6 is a random unique local subnet (RFC 4193) that overlaps none of taken.
func Subnet6(taken []netip.Prefix) netip.Prefix {
	for {
		var b [16]byte
		b[0] = 0xfd
		rand.Read(b[1:6]) // never fails: crypto/rand ends the program instead
		if s := netip.PrefixFrom(netip.AddrFrom16(b), 64); !Overlaps(s, taken) {
			return s
		}
	}
}

// Overlaps reports whether p shares an address with one of taken.
func Overlaps(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if p.Overlaps(t.Masked()) {
			return true
		}
	}
	return false
}

// Free is the lowest address of a subnet, or of the part of it that is called
// within if that is valid, for which taken is false. The subnet's own address and
// its broadcast address are nobody's. The error is ErrFull.
func Free(subnet, within netip.Prefix, taken func(netip.Addr) bool) (netip.Addr, error) {
	if !within.IsValid() {
		within = subnet
	}
	for a := within.Masked().Addr(); a.IsValid() && within.Contains(a); a = a.Next() {
		if Usable(subnet, a) && !taken(a) {
			return a, nil
		}
	}
	return netip.Addr{}, ErrFull
}

// Usable reports whether an address of a subnet can be a host's.
func Usable(subnet netip.Prefix, a netip.Addr) bool {
	return subnet.Contains(a) && a != subnet.Masked().Addr() && !(a.Is4() && a == last(subnet))
}

// last is the last address of an IPv4 subnet.
func last(p netip.Prefix) netip.Addr { return add(p.Masked().Addr(), 1<<(32-p.Bits())-1) }

// add counts on from an IPv4 address.
func add(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// MAC is docker's way to make a device's address of an IPv4 address.
func MAC(a netip.Addr) string {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}.String()
}
