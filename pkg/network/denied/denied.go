// Package denied is what no guest reaches through the host, in user mode and in
// bridge networks alike, whatever the guest's packets say. It is a list and no
// rule: each mode has its own way to deny, and adds what only it could reach.
package denied

import "net/netip"

// Targets are networks that mean the host itself, its link or a cloud's metadata,
// and those of IPv6 in which there is an IPv4 address. The caller owns the result.
func Targets() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), // connects to the host itself on Linux
		netip.MustParsePrefix("100.100.100.200/32"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("168.63.129.16/32"),
		netip.MustParsePrefix("169.254.0.0/16"), // link-local, and 169.254.169.254

		netip.MustParsePrefix("::/96"), // IPv4, as the next five; with it :: and ::1
		netip.MustParsePrefix("::ffff:0:0/96"),
		netip.MustParsePrefix("64:ff9b::/96"),
		netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("2001::/32"),
		netip.MustParsePrefix("2002::/16"),
		netip.MustParsePrefix("fd00:42::42/128"),
		netip.MustParsePrefix("fd00:ec2::254/128"),
		netip.MustParsePrefix("fd20:ce::254/128"),
		netip.MustParsePrefix("fec0::/10"),
	}
}
