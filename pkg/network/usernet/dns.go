package usernet

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsPort = 53
	// dnsTimeout is how long one resolver has for its answer; resolv.conf(5)
	// has the same by default.
	dnsTimeout = 5 * time.Second
	// nameTTL of the names that are answered here, in seconds.
	nameTTL = 60
)

var errNoResolver = errors.New("no name server answers")

// serveNames answers the questions of one flow of the guest. Each is passed on
// as it is, so that every type of record works; only the names of the host are
// answered here.
func (n *Network) serveNames(guest net.Conn) {
	stop := closeWith(n.ctx, guest)
	defer stop()
	buf := make([]byte, maxDatagram)
	for {
		guest.SetReadDeadline(time.Now().Add(flowIdle))
		k, err := guest.Read(buf)
		if err != nil {
			return
		}
		query := slices.Clone(buf[:k])
		if reply := n.ownName(query); reply != nil {
			guest.Write(reply)
			continue
		}
		if len(query) < 12 || !n.queries.take() {
			continue // no question, or too many: it will be asked again
		}
		n.wg.Go(func() {
			defer n.queries.give()
			if reply := n.resolve(query); reply != nil {
				guest.Write(reply)
			}
		})
	}
}

// ownName is the answer to a question for a name of the host, nil for others.
func (n *Network) ownName(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response || h.OpCode != 0 {
		return nil
	}
	q, err := p.Question()
	if err != nil || !slices.Contains(n.c.Names, strings.ToLower(q.Name.String())) {
		return nil
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	record := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: nameTTL}}
	switch {
	case q.Type == dnsmessage.TypeA && n.c.Gateway.Is4():
		record.Body = &dnsmessage.AResource{A: n.c.Gateway.As4()}
		m.Answers = append(m.Answers, record)
	case q.Type == dnsmessage.TypeAAAA && n.c.Gateway.Is6():
		record.Body = &dnsmessage.AAAAResource{AAAA: n.c.Gateway.As16()}
		m.Answers = append(m.Answers, record)
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// resolve asks the resolvers in turn; nil when none answers.
func (n *Network) resolve(query []byte) []byte {
	for _, r := range n.c.Resolvers() {
		reply, err := ask(n.ctx, r, query)
		if err == nil {
			return reply
		}
		n.c.Log.Debug("name server", "address", r, "err", err)
	}
	return serverFailure(query)
}

// ask sends one question from a port of its own and waits for the answer.
func ask(ctx context.Context, resolver netip.AddrPort, query []byte) ([]byte, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(resolver))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := closeWith(ctx, c)
	defer stop()
	c.SetDeadline(time.Now().Add(dnsTimeout))
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxDatagram)
	for {
		k, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if k >= 12 && binary.BigEndian.Uint16(buf) == binary.BigEndian.Uint16(query) {
			return buf[:k], nil
		}
	}
}

// serverFailure turns a question into "server failure", RFC 1035 section 4.1.1.
func serverFailure(query []byte) []byte {
	reply := slices.Clone(query)
	reply[2] |= 0x80                // an answer
	reply[3] = reply[3]&0xf0 | 0x82 // recursion was available, code 2
	return reply
}

// dialResolver connects to the first resolver that takes the connection.
func (n *Network) dialResolver() (*net.TCPConn, error) {
	for _, r := range n.c.Resolvers() {
		ctx, cancel := context.WithTimeout(n.ctx, dnsTimeout)
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.String())
		cancel()
		if err == nil {
			return c.(*net.TCPConn), nil
		}
	}
	return nil, errNoResolver
}
