package bridge

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/micropod/micropod/pkg/network/denied"
)

// Limits of what a record may say.
const (
	maxVM       = 100 // bytes: with a device's name it is a comment of nftables
	maxForwards = 1 << 17
	minMTU      = 1280 // IPv6 has no smaller one: RFC 8200, section 5
	maxMTU      = 65535
	// bridgeNameSize is that of all our bridges' names.
	bridgeNameSize = len(bridgePrefix) + bridgeIDSize
	bridgeIDSize   = 12
)

// validate tells what is wrong with an endpoint: it comes from a file.
func (e Endpoint) validate() error {
	if err := e.Network.Validate(); err != nil {
		return fmt.Errorf("network %.64s: %w", e.Network.ID, err)
	}
	if !word(e.VM, maxVM) {
		return fmt.Errorf("VM %.120q: not an id", e.VM)
	}
	if !word(e.Device, nameSize-1) || strings.HasPrefix(e.Device, bridgePrefix) {
		return fmt.Errorf("device %.30q: not a name for a device of a VM", e.Device)
	}
	if mac, err := net.ParseMAC(e.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return fmt.Errorf("MAC address %.30q: not one of a device", e.MAC)
	}
	if err := e.Network.holds(e.Address, e.Network.Subnet, e.Network.Gateway); err != nil {
		return err
	}
	if e.Address6.IsValid() || e.Network.Subnet6.IsValid() {
		if err := e.Network.holds(e.Address6, e.Network.Subnet6, e.Network.Gateway6); err != nil {
			return err
		}
	}
	return validForwards(e.Forwards)
}

// holds is that an address is one for a guest of the network.
func (n Network) holds(a, subnet netip.Prefix, gateway netip.Addr) error {
	if !subnet.Contains(a.Addr()) || a.Bits() != subnet.Bits() || a.Addr() == gateway || a.Addr() == subnet.Addr() {
		return fmt.Errorf("address %s: not one of a guest in %s", a, subnet)
	}
	return nil
}

// Validate tells what is wrong with a network: no endpoint can be in one of those.
func (n Network) Validate() error {
	if !isID(n.ID) {
		return fmt.Errorf("id %.80q: not one", n.ID)
	}
	if n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU) {
		return fmt.Errorf("MTU %d: not from %d to %d", n.MTU, minMTU, maxMTU)
	}
	if err := validSubnet(n.Subnet, n.Gateway); err != nil {
		return err
	}
	if !n.Subnet.Addr().Is4() {
		return fmt.Errorf("subnet %s: not one of IPv4", n.Subnet)
	}
	if !n.Subnet6.IsValid() && !n.Gateway6.IsValid() {
		return nil
	}
	if err := validSubnet(n.Subnet6, n.Gateway6); err != nil {
		return err
	}
	if !n.Subnet6.Addr().Is6() || n.Subnet6.Addr().Is4In6() {
		return fmt.Errorf("subnet %s: not one of IPv6", n.Subnet6)
	}
	return nil
}

// validSubnet refuses networks that mean something else, and those whose packets
// chain admit would not let pass.
func validSubnet(p netip.Prefix, gateway netip.Addr) error {
	a := p.Addr()
	if !p.IsValid() || p != p.Masked() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return fmt.Errorf("subnet %s: not one for guests", p)
	}
	if !p.Contains(gateway) || gateway == a || gateway.Zone() != "" {
		return fmt.Errorf("gateway %s: not one of subnet %s", gateway, p)
	}
	for _, d := range denied.Targets() {
		if d.Overlaps(p) {
			return fmt.Errorf("subnet %s: overlaps %s, which no guest reaches", p, d)
		}
	}
	return nil
}

func validForwards(all []Forward) error {
	if len(all) > maxForwards {
		return fmt.Errorf("%d published ports: more than %d", len(all), maxForwards)
	}
	for _, f := range all {
		at := f.Host.Addr()
		if f.Proto != "tcp" && f.Proto != "udp" || !f.Host.IsValid() || at.Is4In6() || at.Zone() != "" ||
			f.Host.Port() == 0 || f.Guest == 0 {
			return fmt.Errorf("published port %.10q %s to %d: not one", f.Proto, f.Host, f.Guest)
		}
	}
	return nil
}

// word is letters, digits and few others: nothing that a path, a comment or a
// device's name ends at.
func word(s string, limit int) bool {
	ok, _ := regexp.MatchString(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`, s)
	return ok && len(s) <= limit
}

func isID(s string) bool {
	ok, _ := regexp.MatchString(`^[0-9a-f]{64}$`, s)
	return ok
}
