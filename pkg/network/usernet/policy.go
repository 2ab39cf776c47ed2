package usernet

import "net/netip"

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

// Networks that no guest reaches through the host, whatever the guest's
// packets say: they mean the host itself, its link, or a cloud's metadata.
var denied = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), // connects to the host itself on Linux
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), // link-local, and 169.254.169.254
	netip.MustParsePrefix("224.0.0.0/3"),    // multicast, reserved, broadcast
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("::ffff:0:0/96"), // IPv4 in a disguise that Unmap did not see
	netip.MustParsePrefix("::/96"),         // IPv4 once more, as the next four
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("fd00:42::42/128"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("fd00:ec2::254/128"),
	netip.MustParsePrefix("fd20:ce::254/128"),
}

func forbidden(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return true
	}
	for _, p := range denied {
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
