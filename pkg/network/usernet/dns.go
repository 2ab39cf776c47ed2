package usernet

import (
	"context"
	"encoding/binary"
	"io"
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

// typeIXFR asks for the changes of a zone: RFC 1995.
const typeIXFR = dnsmessage.Type(251)

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
		if !isQuestion(query) || !n.queries.take() {
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

// serveNamesTCP answers the questions of one connection, one after the other:
// RFC 1035 section 4.2.2.
func (n *Network) serveNamesTCP(guest net.Conn) {
	var size [2]byte
	for {
		guest.SetDeadline(time.Now().Add(flowIdle))
		if _, err := io.ReadFull(guest, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(guest, query); err != nil {
			return
		}
		reply := n.ownName(query)
		if reply == nil && isQuestion(query) {
			reply = n.resolveTCP(query)
		}
		if reply == nil {
			return
		}
		if _, err := guest.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// resolveTCP is resolve for answers that no datagram holds.
func (n *Network) resolveTCP(query []byte) []byte {
	for _, r := range n.c.Resolvers() {
		reply, err := askTCP(n.ctx, r, query)
		if err == nil {
			return reply
		}
		n.c.Log.Debug("name server", "address", r, "err", err)
	}
	return serverFailure(query)
}

func askTCP(ctx context.Context, resolver netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", resolver.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := closeWith(ctx, c)
	defer stop()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	reply := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err = io.ReadFull(c, reply)
	return reply, err
}

// isQuestion reports whether a message only asks: a name server may do more for
// those who ask from the host's loopback.
func isQuestion(b []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.Response || h.OpCode != 0 {
		return false
	}
	q, err := p.Question()
	return err == nil && q.Type != typeIXFR && q.Type != dnsmessage.TypeAXFR
}
