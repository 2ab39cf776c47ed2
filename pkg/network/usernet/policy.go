package usernet

import (
	"net/netip"

	"github.com/micropod/micropod/pkg/network/denied"
)

// policy decides where a connection of the guest goes.
type policy struct {
	gateway  netip.Addr
	host     func() netip.Addr
	others   func(netip.Addr) bool
	guest    netip.Prefix
	internal bool
}

// target is the address that the host dials for a connection of the guest to
// dst; ok is false when the guest may not reach it. Names and peers go their own
// way before.
func (p policy) target(dst netip.AddrPort) (to netip.AddrPort, ok bool) {
	addr := dst.Addr().Unmap()
	switch {
	case p.internal:
		return netip.AddrPort{}, false
	case addr.Is4() != p.gateway.Is4():
		return netip.AddrPort{}, false // the guest has no such address to answer with
	case addr == p.gateway:
		host := p.host()
		return netip.AddrPortFrom(host, dst.Port()), !forbidden(host)
	case p.guest.Contains(addr):
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

// source is the address that a client of a published port has for the guest:
// its own, unless the guest could not answer that one.
func (p policy) source(client netip.AddrPort) netip.AddrPort {
	a := client.Addr().Unmap().WithZone("")
	if a.Is4() != p.gateway.Is4() || forbidden(a) || p.guest.Contains(a) {
		// The port is left open: two clients may have the same.
		return netip.AddrPortFrom(p.gateway, 0)
	}
	return netip.AddrPortFrom(a, client.Port())
}
