package bridge

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Bits of a packet's mark that Kubernetes (14, 15), CNI's portmap (13), Cilium (8
// to 11) and Tailscale (16 to 23) leave alone. Without either the gate of a bridge
// (gate.go) drops a packet, and with seen the routing rule (route.go) forwards
// none: so neither table can be without the other.
const (
	// seen: the table of bridges knows whose frame it is.
	seen = 1 << 12
	// passed: the table of IP lets it in from a guest, or out to one.
	passed = 1 << 5
)

// bridgePrefix is that of the names of all our bridges, whoever's on the host.
const bridgePrefix = "mp-"

// ICMPv6 messages; RFC 4861, and 2710 and 3810 for those of the listeners.
const (
	routerAdvertisement   = 134
	neighborSolicitation  = 135
	neighborAdvertisement = 136
	redirectMessage       = 137
	listenerReport        = 131
	listenerReport2       = 143
)

// A rule has its expressions, and a comment for who lists the rules.
type rule struct {
	comment string
	parts   []match
}

// chain is a chain with all of its rules. Only those at a hook have a kind.
type chain struct {
	family   nftables.TableFamily
	name     string
	kind     nftables.ChainType
	hook     nftables.ChainHook
	priority nftables.ChainPriority
	rules    []rule
}

// Priorities, of linux/netfilter_ipv4.h.
const (
	priorityFirst  = -300 // before connection tracking, and all of br_netfilter
	priorityNAT    = -100
	priorityFilter = 0
	prioritySource = 100
	priorityLast   = 300
)

// chains are the policy. They never change while VMs come and go: what differs
// is in the sets.
func chains() []chain {
	return []chain{
		guardChain(), apartChain(), admitChain(), arriveChain(), publishChain(), arrivedChain(),
		guestChain(), inputChain(), forwardChain(), translateChain(), leaveChain(),
	}
}

// guardChain lets out of a guest's device only what has the guest's addresses.
func guardChain() chain {
	ether := func(t uint16) match { return is(etherType(), byte(t>>8), byte(t)) }
	arp, ip, ip6 := ether(unix.ETH_P_ARP), ether(unix.ETH_P_IP), ether(unix.ETH_P_IPV6)
	from6 := in("sources6", iifname(), etherSource(), source6())
	notTarget := notIn("sources6", iifname(), etherSource(), discoveryOf())
	unspecified := is(source6(), make([]byte, 16)...)
	return chain{
		nftables.TableFamilyBridge, "guard", nftables.ChainTypeFilter, unix.NF_INET_PRE_ROUTING, priorityFirst, []rule{
			{"not of a guest", []match{notIn("ports", iifname()), accept()}},
			{"its addresses, as Ethernet and as ARP have them", []match{
				arp, is(arpForm(), 0, 1, 8, 0, 6, 4), in("sources", iifname(), etherSource(), arpSender()),
				in("sources", iifname(), arpSenderMAC(), arpSender()), accept(),
			}},
			{"DHCP server", []match{ip, udpFrom(67), drop()}},
			{"its address", []match{ip, in("sources", iifname(), etherSource(), source4()), mark(seen), accept()}},
			{"DHCPv6 server", []match{ip6, udpFrom(547), drop()}},
			{"router", []match{ip6, icmp6(routerAdvertisement), drop()}},
			{"redirect", []match{ip6, icmp6(redirectMessage), drop()}},
			{"neighbor advertisement for another", []match{ip6, icmp6(neighborAdvertisement), notTarget, drop()}},
			{"its address", []match{ip6, from6, mark(seen), accept()}},
			{"duplicate address detection", []match{
				ip6, unspecified, icmp6(neighborSolicitation),
				in("sources6", iifname(), etherSource(), discoveryOf()), mark(seen), accept(),
			}},
			{"multicast listener", []match{ip6, unspecified, icmp6(listenerReport), mark(seen), accept()}},
			{"multicast listener", []match{ip6, unspecified, icmp6(listenerReport2), mark(seen), accept()}},
			{"all else of a guest", []match{drop()}},
		},
	}
}

// apartChain keeps a port that is not ours from those that are: nothing holds it
// to an address.
func apartChain() chain {
	return chain{
		nftables.TableFamilyBridge, "apart", nftables.ChainTypeFilter, unix.NF_INET_FORWARD, priorityFirst, []rule{
			{"unknown port", []match{in("ports", oifname()), notIn("ports", iifname()), drop()}},
		},
	}
}

// arriveChain is the first that sees a packet of a bridge.
func arriveChain() chain {
	notLoopback := isNot(iifname(), name("lo")...)
	to127 := is(payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 1), 127)
	return chain{
		nftables.TableFamilyINet, "arrive", nftables.ChainTypeFilter, unix.NF_INET_PRE_ROUTING, priorityFirst, []rule{
			// Where somebody set route_localnet, 127.0.0.1 is reached from the
			// link; a port that is published there is not to be.
			{"published on loopback", []match{ipv4(), to127, notLoopback, in("loopback", protocol(), destination4(), port()), drop()}},
			{"published on loopback", []match{ipv6(), notLoopback, in("loopback6", protocol(), destination6(), port()), drop()}},
			{"of a guest", []match{in("bridges", iifname()), jump("admit")}},
			// Somebody deleted its bridge.
			{"a port without its bridge", []match{in("devices", iifname()), drop()}},
		},
	}
}

// admitChain lets in what comes of a guest.
func admitChain() chain {
	return chain{
		nftables.TableFamilyINet, "admit", "", 0, 0, []rule{
			{"unknown port", []match{noneOf(packetMark(), seen), drop()}},
			{"not of this network", []match{ipv4(), notIn("guests", iifname(), source4()), drop()}},
			{"not of this network", []match{
				ipv6(), isNot(source6(), make([]byte, 16)...), notIn("guests6", iifname(), source6()), drop(),
			}},
			{"link-local, metadata", []match{ipv4(), in("denied", destination4()), reject()}},
			{"metadata, IPv4 in disguise", []match{ipv6(), in("denied6", destination6()), reject()}},
			{"", []match{mark(passed), accept()}},
		},
	}
}

// publishChain leads published ports, and questions for names, where they go.
func publishChain() chain {
	const four, six = unix.NFPROTO_IPV4, unix.NFPROTO_IPV6
	notLoopback4 := isNot(payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 1), 127)
	notLoopback6 := isNot(destination6(), append(make([]byte, 15), 1)...)
	return chain{
		nftables.TableFamilyINet, "publish", nftables.ChainTypeNAT, unix.NF_INET_PRE_ROUTING, priorityNAT, []rule{
			{"name server", []match{
				ipv4(), in("gateways", iifname(), destination4()),
				forwardTo(four, "names", iifname(), source4(), protocol(), port()),
			}},
			{"name server", []match{
				ipv6(), in("gateways6", iifname(), destination6()),
				forwardTo(six, "names6", iifname(), source6(), protocol(), port()),
			}},
			// The supervisor's socket does it: br_netfilter would send the packet
			// back to the port that it came from, and a bridge does not.
			{"its own", []match{ipv4(), in("own", source4(), protocol(), destination4(), port()), accept()}},
			{"its own", []match{ipv4(), in("own_any", source4(), protocol(), port()), accept()}},
			{"its own", []match{ipv6(), in("own6", source6(), protocol(), destination6(), port()), accept()}},
			{"its own", []match{ipv6(), in("own_any6", source6(), protocol(), port()), accept()}},
			{"on an address", []match{ipv4(), forwardTo(four, "published", protocol(), destination4(), port())}},
			{"on all", []match{ipv4(), local(), notLoopback4, forwardTo(four, "published_any", protocol(), port())}},
			{"on an address", []match{ipv6(), forwardTo(six, "published6", protocol(), destination6(), port())}},
			{"on all", []match{ipv6(), local(), notLoopback6, forwardTo(six, "published_any6", protocol(), port())}},
		},
	}
}

// arrivedChain is the last that sees a packet of a bridge before its route is
// looked for. It came by chain arrive, but others may have given it their mark
// since, and where br_netfilter is the gate comes after it.
func arrivedChain() chain {
	return chain{
		nftables.TableFamilyINet, "arrived", nftables.ChainTypeFilter, unix.NF_INET_PRE_ROUTING, priorityLast, []rule{
			{"", []match{not(passed), in("bridges", iifname()), mark(passed)}},
		},
	}
}

// inputChain is what the host itself gets. The gateways' addresses are for their
// networks only, though the host has them for every link.
func inputChain() chain {
	return chain{
		nftables.TableFamilyINet, "input", nftables.ChainTypeFilter, unix.NF_INET_LOCAL_IN, priorityFilter, []rule{
			{"of a guest", []match{in("bridges", iifname()), jump("guest")}},
			{"the host's own", []match{is(iifname(), name("lo")...), accept()}},
			{"a gateway, from elsewhere", []match{ipv4(), in("addresses", destination4()), drop()}},
			{"a gateway, from elsewhere", []match{ipv6(), in("addresses6", destination6()), drop()}},
		},
	}
}

// guestChain is what a guest reaches of the host.
func guestChain() chain {
	linkLocal := masked(expr.CmpOpEq, payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 2), []byte{0xff, 0xc0}, []byte{0xfe, 0x80})
	return chain{
		nftables.TableFamilyINet, "guest", "", 0, 0, []rule{
			{"", []match{established(), accept()}},
			{"its own name server", []match{ipv4(), in("asking", iifname(), source4(), protocol(), port()), accept()}},
			{"its own name server", []match{ipv6(), in("asking6", iifname(), source6(), protocol(), port()), accept()}},
			{"another's name server", []match{ipv4(), in("nameservers", protocol(), destination4(), port()), reject()}},
			{"another's name server", []match{ipv6(), in("nameservers6", protocol(), destination6(), port()), reject()}},
			{"its gateway", []match{ipv4(), in("gateways", iifname(), destination4()), accept()}},
			{"its gateway", []match{ipv6(), in("gateways6", iifname(), destination6()), accept()}},
			{"neighbor discovery", []match{ipv6(), icmp6(neighborSolicitation), accept()}},
			{"neighbor discovery", []match{ipv6(), icmp6(neighborAdvertisement), accept()}},
			{"multicast, broadcast", []match{notLocal(), drop()}},
			{"link-local", []match{ipv6(), linkLocal, drop()}},
			{"internal", []match{in("internal", iifname()), reject()}},
			{"another network's gateway", []match{ipv4(), in("addresses", destination4()), reject()}},
			{"another network's gateway", []match{ipv6(), in("addresses6", destination6()), reject()}},
		},
	}
}

// forwardChain is what goes through the host.
func forwardChain() chain {
	return chain{
		nftables.TableFamilyINet, "forward", nftables.ChainTypeFilter, unix.NF_INET_FORWARD, priorityFilter, []rule{
			{"", []match{established(), accept()}},
			// Frames within a bridge come here where br_netfilter is.
			{"within a network", []match{in("pairs", iifname(), oifname()), accept()}},
			{"internal", []match{in("internal", iifname()), reject()}},
			{"internal", []match{in("internal", oifname()), drop()}},
			{"published", []match{translated(), accept()}},
			{"another network", []match{in("bridges", iifname()), prefix(oifname(), bridgePrefix), reject()}},
			{"not published", []match{in("bridges", oifname()), drop()}},
		},
	}
}

// translateChain gives packets the host's address where the guest's would not do.
func translateChain() chain {
	return chain{
		nftables.TableFamilyINet, "translate", nftables.ChainTypeNAT, unix.NF_INET_POST_ROUTING, prioritySource, []rule{
			// Else the answer would go from guest to guest, not by us.
			{"published, from its own network", []match{ipv4(), translated(), in("guests", oifname(), source4()), masquerade()}},
			{"published, from its own network", []match{ipv6(), translated(), in("guests6", oifname(), source6()), masquerade()}},
			{"to guests", []match{prefix(oifname(), bridgePrefix), accept()}},
			{"to others", []match{ipv4(), in("masquerade", source4()), masquerade()}},
			{"to others", []match{ipv6(), in("masquerade6", source6()), masquerade()}},
		},
	}
}

// leaveChain is the last that sees a packet to a bridge.
func leaveChain() chain {
	return chain{
		nftables.TableFamilyINet, "leave", nftables.ChainTypeFilter, unix.NF_INET_POST_ROUTING, priorityLast, []rule{
			{"", []match{in("bridges", oifname()), mark(passed)}},
		},
	}
}

// name is a device's as a register has it.
func name(s string) []byte {
	b := make([]byte, nameSize)
	copy(b, s)
	return b
}
