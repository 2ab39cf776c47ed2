package usernet

import (
	"net/netip"

	"github.com/micropod/micropod/pkg/network/denied"
)

// side is the guest's network in one family of addresses.
type side struct {
	guest   netip.Prefix
	gateway netip.Addr
}

// policy decides where a connection of the guest goes.
type policy struct {
	sides    []side // IPv4's first
	host     func(gateway netip.Addr) netip.Addr
	others   func(netip.Addr) bool
	internal bool
}

// side is the guest's of the family of an address; false where it has none. An
// IPv4 address in IPv6's form is of neither family: a packet with one is forged.
func (p policy) side(a netip.Addr) (side, bool) {
	for _, s := range p.sides {
		if s.gateway.BitLen() == a.BitLen() && !a.Is4In6() {
			return s, true
		}
	}
	return side{}, false
}

// isGateway reports whether an address is this side's.
func (p policy) isGateway(a netip.Addr) bool {
	s, ok := p.side(a)
	return ok && a == s.gateway
}

// target is the address that the host dials for a connection of the guest to
// dst; ok is false when the guest may not reach it. Names and peers go their own
// way before.
func (p policy) target(dst netip.AddrPort) (to netip.AddrPort, ok bool) {
	addr := dst.Addr()
	s, ok := p.side(addr)
	switch {
	case p.internal || !ok:
		return netip.AddrPort{}, false
	case addr == s.gateway:
		host := p.host(addr)
		return netip.AddrPortFrom(host, dst.Port()), !forbidden(host)
	case s.guest.Contains(addr):
		return netip.AddrPort{}, false // never by the host's networks
	case forbidden(addr) || p.others(addr):
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, dst.Port()), true
}

// unreachable are the targets that no guest of any mode reaches, and those that
// only a stack which takes every address for its own could dial.
var unreachable = append(denied.Targets(),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, reserved, broadcast
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
)

func forbidden(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return true
	}
	for _, p := range unreachable {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// source is the address that a client of a published port has for the guest: its
// own, unless the guest could not answer that one, and then the gateway's, of the
// client's family where the guest has it.
func (p policy) source(client netip.AddrPort) netip.AddrPort {
	a := client.Addr().Unmap().WithZone("")
	s, ok := p.side(a)
	if !ok {
		s = p.sides[0]
	}
	if !ok || forbidden(a) || s.guest.Contains(a) {
		// The port is left open: two clients may have the same.
		return netip.AddrPortFrom(s.gateway, 0)
	}
	return netip.AddrPortFrom(a, client.Port())
}
