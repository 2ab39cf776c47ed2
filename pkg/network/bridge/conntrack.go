package bridge

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flowFilter chooses tracked connections.
type flowFilter func(*netlink.ConntrackFlow) bool

// MatchConntrackFlow is netlink's way to ask.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

// forgetGuests deletes the connections of guests that are no more: the next one
// who gets the address would get their packets.
func forgetGuests(guests []netip.Addr) error {
	gone, families := map[netip.Addr]bool{}, map[netlink.InetFamily]bool{}
	for _, a := range guests {
		gone[a], families[familyOf(a)] = true, true
	}
	return forget(families, func(f *netlink.ConntrackFlow) bool {
		// The answers to what a client sent to a published port come from the guest.
		return gone[address(f.Forward.SrcIP)] || gone[address(f.Forward.DstIP)] || gone[address(f.Reverse.SrcIP)]
	})
}

// forgetClients deletes connections of UDP clients to ports that are published
// from now on. To a client that goes on sending it is one connection still, with
// whoever answered or did not answer before.
func forgetClients(forwards []Forward) error {
	ports, families := map[uint16]bool{}, map[netlink.InetFamily]bool{}
	for _, f := range forwards {
		if at := f.Host.Addr(); f.Proto == "udp" && !at.IsLoopback() {
			ports[f.Host.Port()], families[familyOf(at)] = true, true
		}
	}
	return forget(families, func(f *netlink.ConntrackFlow) bool {
		return f.Forward.Protocol == unix.IPPROTO_UDP && ports[f.Forward.DstPort]
	})
}

// forget is deleteFlows, unless there are none: even to look at an empty table takes
// longer than all else of an end.
func forget(families map[netlink.InetFamily]bool, these flowFilter) error {
	count, err := os.ReadFile(filepath.Join(sysctlDir, "netfilter/nf_conntrack_count"))
	if err == nil && strings.TrimSpace(string(count)) == "0" {
		return nil
	}
	return deleteFlows(families, these)
}

// deleteFlows looks at all connections of the families that there are, which takes a
// while each.
func deleteFlows(families map[netlink.InetFamily]bool, these flowFilter) error {
	for family := range families {
		_, err := consistent(func() (uint, error) {
			return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, these)
		})
		if err != nil {
			return fmt.Errorf("forget tracked connections: %w", err)
		}
	}
	return nil
}

func familyOf(a netip.Addr) netlink.InetFamily {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func address(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
