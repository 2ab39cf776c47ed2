package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
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
				t.Errorf("%v, want %s", got, want)
			}
			return err
		})
	}
	found("{[] [] false}")
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
	found("{[ip filter FORWARD] [inet fw in ip filter INPUT] false}")
	l.host.run("nft add chain inet fw own")
	l.host.run("nft add rule inet fw own iifname mp-* accept")
	found("{[ip filter FORWARD] [inet fw in ip filter INPUT] false}")
	l.host.run("nft insert rule inet fw in jump own")
	found("{[ip filter FORWARD] [ip filter INPUT] false}")
	l.host.run("iptables -A FORWARD -i mp-+ -j ACCEPT")
	found("{[] [ip filter INPUT] false}")
	l.host.run("iptables -D FORWARD 1")
	l.host.run("iptables -P INPUT ACCEPT")
	found("{[ip filter FORWARD] [] false}")
	l.host.run("iptables -A INPUT -m comment --comment last -j REJECT")
	found("{[ip filter FORWARD] [ip filter INPUT] false}")
	l.host.run("iptables -R INPUT 1 -m state --state INVALID -j REJECT")
	found("{[ip filter FORWARD] [] false}")
	// The last one asks what package nftables knows nothing of.
	l.host.run("nft add table ip odd")
	l.host.run("nft add chain ip odd in { type filter hook input priority 0 ; }")
	l.host.run("nft add rule ip odd in osf name Linux drop")
	found("{[ip filter FORWARD] [] false}")
	l.host.run("nft add rule ip odd in iifname mp-* meta mark set 1 drop")
	found("{[ip filter FORWARD] [] false}")
	l.host.run("nft add rule ip odd in drop")
	found("{[ip filter FORWARD] [] false}")
	l.host.run("nft flush chain ip odd in")
	l.host.run("nft add rule ip odd in iifname lo oifname mp-* accept")
	l.host.run("nft add rule ip odd in counter log drop")
	found("{[ip filter FORWARD] [ip odd in] false}")
}

// TestFindDropsBounded: a firewall with more rules than a VM can wait for is not
// looked at to its end.
func TestFindDropsBounded(t *testing.T) {
	l := newLab(t)
	var firewall strings.Builder
	firewall.WriteString("table inet fw { chain in { type filter hook input priority 0; policy drop;\n")
	for i := range maxRules {
		fmt.Fprintf(&firewall, "ip saddr 10.1.%d.%d drop\n", i/256, i%256)
	}
	firewall.WriteString("}; }")
	file := filepath.Join(t.TempDir(), "firewall")
	if err := os.WriteFile(file, []byte(firewall.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	want := func(want Drops) {
		t.Helper()
		l.host.do(func() error {
			got, err := FindDrops()
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			return err
		})
	}
	l.host.run("nft -f " + file)
	want(Drops{Received: []string{"inet fw in"}})
	l.host.run("nft add rule inet fw in accept")
	want(Drops{TooMany: true})
}

// TestFindDropsTogether: others who change their rules all the time are no reason not
// to know.
func TestFindDropsTogether(t *testing.T) {
	l := newLab(t)
	l.host.run("nft add table inet fw")
	l.host.run("nft add chain inet fw in { type filter hook input priority 0 ; policy drop ; }")
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			e := testEndpoint(testNetwork(1), 2)
			if err := l.host.try(func() error { return errors.Join(l.h.Join(e), l.h.Leave(e)) }); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 50 {
		l.host.do(func() error {
			d, err := FindDrops()
			if got := fmt.Sprint(d); got != "{[] [inet fw in] false}" {
				t.Error(got)
			}
			return err
		})
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
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
