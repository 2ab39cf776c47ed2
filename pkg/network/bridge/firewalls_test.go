package bridge

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestFindDrops names the chains of others that let nothing through by themselves.
func TestFindDrops(t *testing.T) {
	l := newLab(t)
	l.host.do(func() error { return l.h.Join(testEndpoint(testNetwork(1), 2)) })
	found := func(want string) {
		t.Helper()
		l.host.do(func() error {
			got, err := FindDrops()
			if fmt.Sprint(got) != want {
				t.Errorf("%s, want %s", got, want)
			}
			return err
		})
	}
	found("{[] []}")
	for _, c := range []string{
		"add table ip filter", "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
		"add chain ip filter INPUT { type filter hook input priority 0 ; policy drop ; }",
		"add table inet fw", "add chain inet fw in { type filter hook input priority 10 ; }",
		"add rule inet fw in iifname lo accept", "add rule inet fw in counter reject with icmpx admin-prohibited",
		"add chain inet fw through { type filter hook forward priority 10 ; }", "add rule inet fw through ip daddr 192.0.2.9 drop",
		"add chain inet fw out { type filter hook output priority 10 ; policy drop ; }",
		"add table bridge other", "add chain bridge other forward { type filter hook forward priority 0 ; policy drop ; }",
	} {
		l.host.run("nft " + c)
	}
	found("{[ip filter FORWARD] [inet fw in ip filter INPUT]}")
	l.host.run("nft add chain inet fw own")
	l.host.run("nft add rule inet fw own iifname mp-* accept")
	found("{[ip filter FORWARD] [inet fw in ip filter INPUT]}")
	l.host.run("nft insert rule inet fw in jump own")
	found("{[ip filter FORWARD] [ip filter INPUT]}")
	l.host.run("iptables -A FORWARD -i mp-+ -j ACCEPT")
	found("{[] [ip filter INPUT]}")
	l.host.run("iptables -D FORWARD 1")
	l.host.run("iptables -P INPUT ACCEPT")
	found("{[ip filter FORWARD] []}")
	l.host.run("iptables -A INPUT -m comment --comment last -j REJECT")
	found("{[ip filter FORWARD] [ip filter INPUT]}")
	l.host.run("iptables -R INPUT 1 -m state --state INVALID -j REJECT")
	found("{[ip filter FORWARD] []}")
}

// TestNamesBehindFirewall is a host that takes nothing in by itself: its firewall drops
// what guests ask the name server, which no table of ours can mend, until it has the
// rule that docs/bridge.md says.
func TestNamesBehindFirewall(t *testing.T) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	e.NameServer = 5301
	g := l.guest(e)
	gateway := e.Network.Gateway.String()
	serve(l.host, netip.AddrPortFrom(e.Network.Gateway, e.NameServer).String())
	serve(l.host, gateway+":82")
	names := func(want string) reach { return reach{"names", g, gateway + ":53", want} }
	check(t, names("10.89.1.2"))
	l.host.run("nft add table inet fw")
	l.host.run("nft add chain inet fw in { type filter hook input priority 10 ; policy drop ; }")
	check(t, names(""))
	l.host.run("nft add rule inet fw in iifname mp-* ct status dnat accept")
	check(t, names("10.89.1.2"), reach{"a service of the host", g, gateway + ":82", ""})
}
