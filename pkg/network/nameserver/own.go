package nameserver

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ownTTL of the names that are answered here, in seconds: a VM that comes back
// may have another address.
const ownTTL = 10

// known is the answer to what needs nobody else, or those to ask. There is
// neither for what gets no answer.
func (s *Server) known(q question) (reply []byte, upstreams []netip.AddrPort) {
	switch q.verdict {
	case drop:
		return nil, nil
	case refuse:
		return q.failure(q.rcode), nil
	}
	if records, ok := s.own(q); ok {
		m := dnsmessage.Message{Header: q.answerHeader(dnsmessage.RCodeSuccess), Questions: []dnsmessage.Question{q.Question}, Answers: records}
		m.Authoritative = true
		return q.pack(m), nil
	}
	if upstreams = s.c.Upstreams(); len(upstreams) == 0 {
		return q.failure(dnsmessage.RCodeNameError), nil
	}
	return nil, upstreams
}

// own looks for a name that is known here, and its records.
func (s *Server) own(q question) ([]dnsmessage.Resource, bool) {
	if q.Class != dnsmessage.ClassINET && q.Class != dnsmessage.ClassANY {
		return nil, false
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	if a, ok := reversed(name); ok && q.Type == dnsmessage.TypePTR {
		return s.pointers(q, a)
	}
	addrs, known := s.c.Lookup(name)
	if !known {
		return nil, false
	}
	var out []dnsmessage.Resource
	for _, a := range addrs {
		if r, ok := addressRecord(q, a.Unmap()); ok {
			out = append(out, r)
		}
	}
	return out, true
}

// addressRecord is an address as the question wants it, if it does.
func addressRecord(q question, a netip.Addr) (dnsmessage.Resource, bool) {
	wants := func(t dnsmessage.Type) bool { return q.Type == t || q.Type == dnsmessage.TypeALL }
	switch {
	case a.Is4() && wants(dnsmessage.TypeA):
		return record(q, dnsmessage.TypeA, &dnsmessage.AResource{A: a.As4()}), true
	case a.Is6() && wants(dnsmessage.TypeAAAA):
		return record(q, dnsmessage.TypeAAAA, &dnsmessage.AAAAResource{AAAA: a.As16()}), true
	}
	return dnsmessage.Resource{}, false
}

func record(q question, t dnsmessage.Type, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: q.Name, Type: t, Class: dnsmessage.ClassINET, TTL: ownTTL},
		Body:   body,
	}
}

// pointers are the names of an address of ours.
func (s *Server) pointers(q question, a netip.Addr) ([]dnsmessage.Resource, bool) {
	var out []dnsmessage.Resource
	for _, n := range s.c.Reverse(a) {
		if target, err := dnsmessage.NewName(n + "."); err == nil {
			out = append(out, record(q, dnsmessage.TypePTR, &dnsmessage.PTRResource{PTR: target}))
		}
	}
	return out, len(out) > 0
}

// reversed is the address that a name in in-addr.arpa or ip6.arpa stands for:
// RFC 1035 section 3.5, RFC 3596 section 2.5. Pure.
func reversed(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		b, ok := backwards(rest, 4, 10, 255)
		if !ok {
			return netip.Addr{}, false
		}
		return netip.AddrFrom4([4]byte(b)), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	nibbles, ok := backwards(rest, 32, 16, 15)
	if !ok {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i := range a {
		a[i] = nibbles[2*i]<<4 | nibbles[2*i+1]
	}
	return netip.AddrFrom16(a), true
}

// backwards reads n numbers with dots between them, the last one first.
func backwards(s string, n, base int, most uint64) ([]byte, bool) {
	labels := strings.Split(s, ".")
	if len(labels) != n {
		return nil, false
	}
	out := make([]byte, n)
	for i, l := range labels {
		v, err := strconv.ParseUint(l, base, 8)
		if err != nil || v > most {
			return nil, false
		}
		out[n-1-i] = byte(v)
	}
	return out, true
}
