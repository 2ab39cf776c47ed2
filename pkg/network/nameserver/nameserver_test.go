package nameserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	a    = dnsmessage.TypeA
	aaaa = dnsmessage.TypeAAAA
	ptr  = dnsmessage.TypePTR
	txt  = dnsmessage.TypeTXT
)

// query encodes a question; room is the size of EDNS, 0 for none.
func query(t testing.TB, name string, kind dnsmessage.Type, room int) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if room > 0 {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(room, dnsmessage.RCodeSuccess, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// upstream is a name server that answers each question with TXT records of
// 200 bytes, as many as the first label of the name says, or with the code
// that it names. Its address serves UDP and TCP.
func upstream(t *testing.T) netip.AddrPort {
	t.Helper()
	for {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenPacket("udp4", l.Addr().String())
		if err != nil { // somebody has the number for UDP
			l.Close()
			continue
		}
		t.Cleanup(func() { l.Close(); c.Close() })
		go upstreamUDP(c)
		go upstreamTCP(l)
		return netip.MustParseAddrPort(l.Addr().String())
	}
}

func upstreamUDP(c net.PacketConn) {
	buf := make([]byte, maxDatagram)
	for {
		k, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if q := decode(buf[:k]); q.verdict == passOn {
			c.WriteTo([]byte("noise"), from)
			c.WriteTo(buf[:k], from) // no answer either
			c.WriteTo(fit(texts(q), q.room), from)
		}
	}
}

func upstreamTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if b, err := readMessage(c); err == nil {
			c.Write(frame(texts(decode(b))))
		}
		c.Close()
	}
}

func texts(q question) []byte {
	first, _, _ := strings.Cut(q.Name.String(), ".")
	var n int
	fmt.Sscan(first, &n)
	m := dnsmessage.Message{Header: q.answerHeader(dnsmessage.RCodeSuccess), Questions: []dnsmessage.Question{q.Question}}
	switch first {
	case "refused":
		m.RCode = dnsmessage.RCodeRefused
	case "nowhere":
		m.RCode = dnsmessage.RCodeNameError
	}
	for range n {
		m.Answers = append(m.Answers, record(q, txt, &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 200)}}))
	}
	return q.pack(m)
}

// web is what the server of the tests knows.
func web(name string) ([]netip.Addr, bool) {
	switch name {
	case "web":
		return []netip.Addr{netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("172.18.0.3"), netip.MustParseAddr("fd00::2")}, true
	case "many":
		return slices.Repeat([]netip.Addr{netip.MustParseAddr("172.18.0.9")}, 100), true
	}
	return nil, false
}

func names(a netip.Addr) []string {
	switch a.String() {
	case "172.18.0.2", "fd00::2":
		return []string{"web.net", "web"}
	}
	return nil
}

// serve starts a server on loopback, as bridge mode has it.
func serve(t *testing.T, upstreams ...netip.AddrPort) (udp, tcp string) {
	t.Helper()
	s := New(Config{Upstreams: func() []netip.AddrPort { return upstreams }, Lookup: web, Reverse: names, Queries: 4, Streams: 4})
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { s.ServePacket(ctx, c); done <- struct{}{} }()
	go func() { s.ServeStream(ctx, l); done <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
	})
	return c.LocalAddr().String(), l.Addr().String()
}

// exchange asks a server by UDP, or TCP.
func exchange(t *testing.T, proto, at string, query []byte) dnsmessage.Message {
	t.Helper()
	c, err := net.Dial(proto, at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if proto == "tcp" {
		query = frame(query)
	}
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	var reply []byte
	if proto == "tcp" {
		reply, err = readMessage(c)
	} else {
		reply = make([]byte, maxDatagram)
		var k int
		k, err = c.Read(reply)
		reply = reply[:k]
	}
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	return m
}

// shown is an answer in short: its code and its records.
func shown(m dnsmessage.Message) string {
	out := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	if m.Truncated {
		out = append(out, "truncated")
	}
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			out = append(out, b.PTR.String())
		case *dnsmessage.TXTResource:
			out = append(out, fmt.Sprint(len(b.TXT[0])))
		}
	}
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	const reverse6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa."
	up := upstream(t)
	outer := []netip.AddrPort{up}
	for _, c := range []struct {
		name      string
		kind      dnsmessage.Type
		room      int
		upstreams []netip.AddrPort
		proto     string
		want      string
	}{
		{"web.", a, 0, outer, "udp", "Success 172.18.0.2 172.18.0.3"},
		{"WEB.", aaaa, 0, nil, "tcp", "Success fd00::2"},
		{"web.", dnsmessage.TypeALL, 1232, nil, "udp", "Success 172.18.0.2 172.18.0.3 fd00::2"},
		{"web.", txt, 0, outer, "udp", "Success"},
		{"many.", a, 0, nil, "udp", "Success truncated"},
		{"many.", a, 1024, nil, "udp", "Success truncated"},
		{"many.", a, 4096, nil, "udp", "Success" + strings.Repeat(" 172.18.0.9", 100)},
		{"many.", a, 0, nil, "tcp", "Success" + strings.Repeat(" 172.18.0.9", 100)},
		{"many.", aaaa, 0, outer, "udp", "Success"},
		{"2.0.18.172.in-addr.arpa.", ptr, 0, outer, "udp", "Success web.net. web."},
		{reverse6, ptr, 0, nil, "udp", "Success web.net. web."},
		{"9.0.18.172.in-addr.arpa.", ptr, 0, nil, "udp", "NameError"},
		{"nobody.", a, 0, nil, "udp", "NameError"},
		{"example.org.", a, 1232, nil, "tcp", "NameError"}, // an internal network asks nobody
		{"2.example.org.", txt, 0, outer, "udp", "Success 200 200"},
		{"2.example.org.", txt, 0, outer, "tcp", "Success 200 200"},
		{"3.example.org.", txt, 0, outer, "udp", "Success truncated"},
		{"3.example.org.", txt, 1232, outer, "udp", "Success 200 200 200"},
		{"20.example.org.", txt, 0, outer, "tcp", "Success" + strings.Repeat(" 200", 20)},
		{"nowhere.", a, 0, outer, "udp", "NameError"},
		{"refused.", a, 0, outer, "udp", "Refused"},
	} {
		udp, tcp := serve(t, c.upstreams...)
		at := udp
		if c.proto == "tcp" {
			at = tcp
		}
		m := exchange(t, c.proto, at, query(t, c.name, c.kind, c.room))
		if got := shown(m); got != c.want || m.ID != 4711 || !m.Response {
			t.Errorf("%s %s by %s with %d: %q, %+v, want %q", c.name, c.kind, c.proto, c.room, got, m.Header, c.want)
		}
		if opt := len(m.Additionals) == 1; opt != (c.room > 0) && !m.Truncated {
			t.Errorf("%s: an OPT record: %t, want %t", c.name, opt, !opt)
		}
	}
}

// closed is an address where nobody answers: tcpmux's, and no number that another
// program may get.
func closed() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:1") }

func TestUpstreams(t *testing.T) {
	for _, proto := range []string{"udp", "tcp"} {
		udp, tcp := serve(t, closed(), upstream(t))
		if got := shown(exchange(t, proto, map[string]string{"udp": udp, "tcp": tcp}[proto], query(t, "1.example.", txt, 0))); got != "Success 200" {
			t.Errorf("by %s, the second of two: %s", proto, got)
		}
		udp, tcp = serve(t, closed())
		if got := shown(exchange(t, proto, map[string]string{"udp": udp, "tcp": tcp}[proto], query(t, "1.example.", txt, 0))); got != "ServerFailure" {
			t.Errorf("by %s, nobody: %s", proto, got)
		}
	}
}

// Two questions of one connection get their answers in turn.
func TestOneConnection(t *testing.T) {
	_, tcp := serve(t)
	c, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	c.Write(append(frame(query(t, "web.", a, 0)), frame(query(t, "nobody.", a, 0))...))
	for _, want := range []string{"Success 172.18.0.2 172.18.0.3", "NameError"} {
		b, err := readMessage(c)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil || shown(m) != want {
			t.Errorf("got %s, %v; want %s", shown(m), err, want)
		}
	}
}
