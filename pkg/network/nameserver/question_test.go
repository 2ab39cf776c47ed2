package nameserver

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestDecode(t *testing.T) {
	good := query(t, "example.org.", a, 0)
	for name, c := range map[string]struct {
		b       []byte
		verdict verdict
		code    dnsmessage.RCode
	}{
		"question":      {b: good, verdict: passOn},
		"answer":        {b: with(good, 2, good[2]|0x80), verdict: drop},
		"update":        {with(good, 2, 5<<3), refuse, dnsmessage.RCodeNotImplemented},
		"notify":        {with(good, 2, 4<<3), refuse, dnsmessage.RCodeNotImplemented},
		"AXFR":          {with(good, len(good)-3, 252), refuse, dnsmessage.RCodeRefused},
		"IXFR":          {with(good, len(good)-3, 251), refuse, dnsmessage.RCodeRefused},
		"no question":   {with(good, 5, 0), refuse, dnsmessage.RCodeFormatError},
		"two questions": {with(append(bytes.Clone(good), good[headerSize:]...), 5, 2), refuse, dnsmessage.RCodeFormatError},
		"cut":           {good[:len(good)-1], refuse, dnsmessage.RCodeFormatError},
		"short":         {b: good[:11], verdict: drop},
		"nothing":       {b: nil, verdict: drop},
	} {
		got := decode(c.b)
		if got.verdict != c.verdict || c.verdict == refuse && got.rcode != c.code {
			t.Errorf("%s: %d, %s", name, got.verdict, got.rcode)
		}
	}
}

func with(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

func TestReversed(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa":                   "1.2.3.4",
		"3.2.1.in-addr.arpa":                     "",
		"256.3.2.1.in-addr.arpa":                 "",
		"x.3.2.1.in-addr.arpa":                   "",
		strings.Repeat("0.", 31) + "f.ip6.arpa":  "f000::",
		strings.Repeat("0.", 31) + "10.ip6.arpa": "",
		"in-addr.arpa":                           "",
		"web":                                    "",
	} {
		got, ok := reversed(name)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %s, %t; want %q", name, got, ok, want)
		}
	}
}

// Whatever a guest sends, it gets at most one answer, to what it asked.
func FuzzQuestion(f *testing.F) {
	f.Add(query(f, "web.", a, 0))
	f.Add(query(f, "2.0.18.172.in-addr.arpa.", ptr, 1232))
	f.Add(query(f, "example.org.", dnsmessage.TypeAXFR, 0))
	f.Add(with(query(f, "many.", a, 9000), 2, 5<<3))
	f.Add([]byte{})
	inner := New(Config{Lookup: web, Reverse: names})
	outer := New(Config{Lookup: web, Upstreams: func() []netip.AddrPort { return make([]netip.AddrPort, 1) }})
	f.Fuzz(func(t *testing.T, b []byte) {
		q := decode(b)
		reply, upstreams := inner.known(q)
		if len(upstreams) > 0 {
			t.Fatal("an internal network asks")
		}
		check(t, b, q, reply)
		reply, upstreams = outer.known(q)
		if reply != nil && len(upstreams) > 0 {
			t.Fatal("an answer, and a question upstream")
		}
		if len(upstreams) > 0 {
			reply = q.failure(dnsmessage.RCodeServerFailure)
		}
		check(t, b, q, reply)
	})
}

func check(t *testing.T, b []byte, q question, reply []byte) {
	t.Helper()
	for _, r := range [][]byte{reply, fit(reply, q.room)} {
		if r == nil {
			continue
		}
		var p dnsmessage.Parser
		h, err := p.Start(r)
		if err != nil || !bytes.Equal(r[:2], b[:2]) || !h.Response {
			t.Fatalf("question %x got %x: %v", b, r, err)
		}
	}
	if r := fit(reply, q.room); len(r) > q.room {
		t.Fatalf("%d bytes for one who takes %d", len(r), q.room)
	}
}
