package network

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/micropod/micropod/pkg/network/bridge"
)

// TestJoinedSockets are those that a NIC has before anything is on the host.
func TestJoinedSockets(t *testing.T) {
	const guest, other = "127.77.0.2", "127.77.0.3"
	b := Bridge{
		Endpoint: bridge.Endpoint{
			Network: bridge.Network{Gateway: netip.MustParseAddr("127.77.0.1"), Gateway6: netip.IPv6Loopback()},
			Address: netip.MustParsePrefix(guest + "/24"), Address6: netip.PrefixFrom(netip.IPv6Loopback(), 128),
		},
		Ports: []Port{{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}},
	}
	names := Names{
		Host:    func() netip.Addr { return netip.MustParseAddr("127.77.0.1") },
		Lookup:  func(name string) ([]netip.Addr, bool) { return []netip.Addr{b.Endpoint.Address.Addr()}, name == "web" },
		Reverse: func(netip.Addr) []string { return nil },
		Asks:    func() ([]netip.Addr, bool) { return nil, false },
	}
	j, err := b.Start(names, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer j.closeSockets()
	e := j.Endpoint()
	if e.NameServer == 0 || len(e.Forwards) != 1 || e.Forwards[0].Host.Port() == 0 || e.Forwards[0].Host.Port() != j.Published()[0].Host.Port() {
		t.Fatalf("%+v", e)
	}
	at, at6 := fmt.Sprintf("127.77.0.1:%d", e.NameServer), fmt.Sprintf("[::1]:%d", e.NameServer)
	for _, c := range []struct{ name, want string }{
		{"web.", guest}, {"host.docker.internal.", "127.77.0.1"}, {"nope.", "RCodeNameError"}, // nobody else is asked
	} {
		for _, proto := range []string{"udp", "tcp"} {
			for from, to := range map[string]string{guest: at, "[::1]": at6} {
				if got, err := question(proto, from, to, c.name, time.Minute); err != nil || got != c.want {
					t.Errorf("%s of %s, asked at %s: %q, %v; want %s", proto, c.name, to, got, err, c.want)
				}
			}
		}
	}
	for _, proto := range []string{"udp", "tcp"} {
		if got, err := question(proto, other, at, "web.", time.Second); err == nil {
			t.Errorf("%s of another guest: %q", proto, got)
		}
	}
}

// TestPublishFails: where there can be no rules for ports, nothing says that they are
// published.
func TestPublishFails(t *testing.T) {
	b := Bridge{Endpoint: bridge.Endpoint{
		Network: bridge.Network{Gateway: netip.MustParseAddr("127.77.0.1")}, // and no id
		Address: netip.MustParsePrefix("127.77.0.2/24"),
	}}
	log := slog.New(slog.DiscardHandler)
	j, err := b.Start(Names{}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer j.closeSockets()
	j.place = b.Host.Place(j.Endpoint())
	var told []int
	record := func() error {
		told = append(told, len(j.Published()))
		return nil
	}
	ports := []Port{{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}}
	if err := j.Publish(t.Context(), ports, log, record); err == nil {
		t.Fatal("no error")
	}
	if !slices.Equal(told, []int{1, 0}) || len(j.Published()) > 0 || len(j.Endpoint().Forwards) > 0 {
		t.Errorf("recorded %v, published %+v, forwards %+v", told, j.Published(), j.Endpoint().Forwards)
	}
}

// question asks for an address from one, and returns it or what is said instead.
func question(proto, from, to, name string, limit time.Duration) (string, error) {
	local, _ := net.ResolveTCPAddr("tcp", from+":0")
	d := net.Dialer{LocalAddr: local, Timeout: limit}
	if proto == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: local.IP}
	}
	c, err := d.Dial(proto, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		return "", err
	}
	skip := 0
	if proto == "tcp" {
		skip, b = 2, slices.Concat([]byte{byte(len(b) >> 8), byte(len(b))}, b)
	}
	if _, err := c.Write(b); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	if err := m.Unpack(buf[skip:n]); err != nil {
		return "", err
	}
	if len(m.Answers) == 1 {
		return netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A).String(), nil
	}
	return m.RCode.String(), nil
}

func TestDeviceName(t *testing.T) {
	const vm = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	if got := DeviceName(vm, 3); got != "mp0123456789abd" || len(got) > 15 {
		t.Error(got)
	}
}

func TestForwards(t *testing.T) {
	got := Forwards(Port{Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:8080"), Any: true, Guest: 80})
	if fmt.Sprint(got) != "[{tcp 0.0.0.0:8080 80} {tcp [::]:8080 80}]" {
		t.Error(got)
	}
	got = Forwards(Port{Proto: "udp", Host: netip.MustParseAddrPort("198.51.100.1:53"), Guest: 53})
	if fmt.Sprint(got) != "[{udp 198.51.100.1:53 53}]" {
		t.Error(got)
	}
}
