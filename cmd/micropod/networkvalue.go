package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
)

// noLinks is why there is no --link.
const noLinks = "containers of a network find each other by name: use network create and --network"

// networkValue is --network: each time one more network.
type networkValue struct{ asked *[]manager.NetworkAttachment }

func (v *networkValue) Type() string { return "network" }

func (v *networkValue) String() string {
	var names []string
	for _, a := range *v.asked {
		names = append(names, a.Network)
	}
	return strings.Join(names, ",")
}

// Set reads a name, or docker's long form of KEY=VALUE.
func (v *networkValue) Set(s string) error {
	a := manager.NetworkAttachment{Network: s}
	if strings.Contains(s, "=") {
		var err error
		if a, err = parseLongNetwork(s); err != nil {
			return err
		}
	}
	if err := refuseMode(a.Network); err != nil {
		return err
	}
	*v.asked = append(*v.asked, a)
	return nil
}

// refuseMode refuses the host's stack: no guest can have that.
func refuseMode(name string) error {
	if name == "host" {
		return &unsupportedFlagError{name: "network", value: name, why: "the guest has a network stack of its own, in its own kernel"}
	}
	return nil
}

// parseLongNetwork reads name=NETWORK,alias=NAME,ip=ADDRESS,ip6=…,mac-address=….
func parseLongNetwork(s string) (manager.NetworkAttachment, error) {
	var a manager.NetworkAttachment
	var ip, ip6 string
	for _, field := range strings.Split(s, ",") {
		key, value, ok := strings.Cut(strings.ToLower(field), "=")
		if !ok || key == "" {
			return a, fmt.Errorf("invalid field %s", field)
		}
		value = strings.TrimSpace(value)
		switch key = strings.TrimSpace(key); key {
		case "name":
			_, a.Network, _ = strings.Cut(field, "=") // names have capitals
		case "alias":
			a.Aliases = append(a.Aliases, value)
		case "ip":
			ip = value
		case "ip6":
			ip6 = value
		case "mac-address":
			a.MAC = value
		case "link-local-ip", "driver-opt", "gw-priority":
			return a, &unsupportedFlagError{name: "network", value: key}
		default:
			return a, fmt.Errorf("invalid field key %s", key)
		}
	}
	if a.Network == "" {
		return a, errors.New("network name/id is not specified")
	}
	return a, chooseAddresses(&a, ip, ip6)
}

// chooseAddresses reads --ip and --ip6; empty is none.
func chooseAddresses(a *manager.NetworkAttachment, ip, ip6 string) error {
	if ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil || !addr.Is4() {
			return fmt.Errorf("invalid IPv4 address: %s", ip)
		}
		a.Address = addr
	}
	if ip6 != "" {
		addr, err := netip.ParseAddr(ip6)
		if err != nil || !addr.Is6() || addr.Is4In6() || addr.Zone() != "" {
			return fmt.Errorf("invalid IPv6 address: %s", ip6)
		}
		a.Address6 = addr
	}
	return nil
}

// oneNetwork are the flags that mean the first network.
type oneNetwork struct {
	aliases []string
	ip, ip6 string
	mac     string
}

// apply puts the flags to the first network, which need not be named. It refuses
// what is said twice.
func (o oneNetwork) apply(asked []manager.NetworkAttachment) ([]manager.NetworkAttachment, error) {
	if len(o.aliases) > 0 || o.ip != "" || o.ip6 != "" || o.mac != "" {
		if len(asked) == 0 {
			asked = []manager.NetworkAttachment{{Network: manager.NetworkDefault}}
		}
		if err := o.merge(&asked[0]); err != nil {
			return nil, err
		}
	}
	return asked, checkTogether(asked)
}

func (o oneNetwork) merge(a *manager.NetworkAttachment) error {
	const twice = "conflicting options: cannot specify both --%s and per-network %s"
	switch {
	case len(a.Aliases) > 0 && len(o.aliases) > 0:
		return fmt.Errorf(twice, "network-alias", "alias")
	case a.Address.IsValid() && o.ip != "":
		return fmt.Errorf(twice, "ip", "IPv4 address")
	case a.Address6.IsValid() && o.ip6 != "":
		return fmt.Errorf(twice, "ip6", "IPv6 address")
	case a.MAC != "" && o.mac != "":
		return fmt.Errorf(twice, "mac-address", "MAC address")
	}
	a.Aliases = append(a.Aliases, o.aliases...)
	if o.mac != "" {
		a.MAC = o.mac
	}
	return chooseAddresses(a, o.ip, o.ip6)
}

// checkTogether is docker's check of all networks of a container.
func checkTogether(asked []manager.NetworkAttachment) error {
	seen := map[string]bool{}
	own, others := false, false
	for i := range asked {
		a := &asked[i]
		if strings.TrimSpace(a.Network) == "" {
			return errors.New("no name set for network")
		}
		if _, err := net.ParseMAC(a.MAC); a.MAC != "" && err != nil {
			return fmt.Errorf("%s is not a valid mac address", a.MAC)
		}
		kind, _, shared := strings.Cut(a.Network, ":")
		if shared && kind == "container" {
			kind = manager.NetworkNone // as little defined by a user
		}
		switch kind {
		case manager.NetworkNone, manager.NetworkUser, manager.NetworkBridge, manager.NetworkDefault:
			others = true
			if len(a.Aliases) > 0 {
				return errors.New("network-scoped aliases are only supported for user-defined networks")
			}
		default:
			own = true
		}
		if seen[a.Network] {
			return fmt.Errorf("network %q is specified multiple times", a.Network)
		}
		seen[a.Network] = true
	}
	if own && others || others && len(asked) > 1 {
		return errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return nil
}
