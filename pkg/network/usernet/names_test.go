package usernet

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/nameserver"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// The guest finds the name server at the gateway, by UDP and TCP and both families.
func TestNames(t *testing.T) {
	lookup := func(name string) ([]netip.Addr, bool) {
		return []netip.Addr{gateway}, name == "host.docker.internal"
	}
	_, guest := network(t, Config{Names: nameserver.New(nameserver.Config{Lookup: lookup})})
	for _, gateway := range []netip.Addr{gateway, gateway6} {
		at := full(netip.AddrPortFrom(gateway, dnsPort))
		udp, err := gonet.DialUDP(guest, nil, &at, protocol(gateway))
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := dialFrom(t, guest, netip.AddrPortFrom(gateway, dnsPort))
		if err != nil {
			t.Fatal(err)
		}
		for proto, c := range map[string]net.Conn{"udp": udp, "tcp": tcp} {
			for name, want := range map[string]int{"HOST.docker.internal.": 1, "nowhere.": 0} {
				if m := ask(t, c, proto, name); len(m.Answers) != want || m.ID != 4711 {
					t.Errorf("%s by %s of %s: %v", name, proto, gateway, m)
				}
			}
			c.Close()
		}
	}
}

func ask(t *testing.T, c net.Conn, proto, name string) dnsmessage.Message {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	skip := 0
	if proto == "tcp" {
		b, skip = append([]byte{0, byte(len(b))}, b...), 2
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 512)
	k, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unpack(buf[skip:k]); err != nil {
		t.Fatal(err)
	}
	return m
}
