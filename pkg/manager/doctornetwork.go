package manager

import (
	"strings"

	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/network/bridge"
)

// checkBridge tells whether there are bridge networks, and what of the host's own
// rules is in their way.
func checkBridge() Check {
	c := Check{Name: "bridge networks"}
	if err := bridge.Available(); err != nil {
		c.Detail = err.Error() + "; user mode works without"
		return c
	}
	c.OK, c.Detail = true, "devices, rules and routes can be made"
	drops, err := bridge.FindDrops()
	if err != nil {
		c.OK, c.Detail = false, err.Error()
		return c
	}
	if what, mend := inTheWay(drops); what != "" {
		c.OK, c.Detail, c.Fix = false, what, mend
	}
	return c
}

// checkPing looks whether guests in user mode can ping more than each other.
func checkPing() Check {
	c := Check{Name: "ping in user mode", OK: true, Detail: "reaches other hosts"}
	if err := network.CanPing(); err != nil {
		c.OK, c.Detail = false, "reaches guests of the same network only: "+err.Error()
		c.Fix = "put a group of yours into the range of the sysctl net.ipv4.ping_group_range"
	}
	return c
}

// inTheWay says what other firewalls drop, "" for nothing, and what mends it. Pure.
func inTheWay(d bridge.Drops) (what, mend string) {
	var whats, mends []string
	if len(d.Forwarded) > 0 {
		whats = append(whats, "what is forwarded ("+strings.Join(d.Forwarded, ", ")+")")
		mends = append(mends, "what comes from devices mp-* and what goes to them")
	}
	if len(d.Received) > 0 {
		whats = append(whats, "what guests ask the host, for names too ("+strings.Join(d.Received, ", ")+")")
		mends = append(mends, `questions for names: iifname "mp-*" ct status dnat accept`)
	}
	if whats == nil && d.TooMany {
		return "another firewall has too many rules to look at all of them", "choose the network of a container with --network"
	}
	if whats == nil {
		return "", ""
	}
	return "another firewall drops " + strings.Join(whats, ", and "), "accept there " + strings.Join(mends, "; ")
}

// checkDefaultNetwork tells where a container is whose user says nothing of it.
func (m *Manager) checkDefaultNetwork() Check {
	c := Check{Name: "default network", OK: true}
	name, why, err := m.DefaultNetwork()
	switch {
	case err != nil:
		c.OK, c.Detail = false, err.Error()
	case why != "":
		c.Detail = name + ": " + why
	default:
		c.Detail = name
	}
	return c
}
