package nameserver

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// upstreamTimeout is how long one name server has for its answer;
	// resolv.conf(5) has the same by default.
	upstreamTimeout = 5 * time.Second
	// maxDatagram is the largest payload of UDP.
	maxDatagram = 65507
)

// asker puts one question to a name server.
type asker func(ctx context.Context, to netip.AddrPort, query []byte) ([]byte, error)

// resolve asks the upstreams in turn, until one answers and is not at a loss
// itself, as the C library does. When none answers, that is the answer.
func (s *Server) resolve(ctx context.Context, upstreams []netip.AddrPort, q question, ask asker) []byte {
	last := q.failure(dnsmessage.RCodeServerFailure)
	for _, u := range upstreams {
		reply, err := ask(ctx, u, q.raw)
		switch {
		case err != nil:
			s.c.Log.Debug("name server", "address", u, "err", err)
		case atALoss(reply):
			last = reply
		default:
			return reply
		}
	}
	return last
}

// atALoss reports whether another name server may know more.
func atALoss(reply []byte) bool {
	switch dnsmessage.RCode(reply[3] & 0xf) {
	case dnsmessage.RCodeServerFailure, dnsmessage.RCodeNotImplemented, dnsmessage.RCodeRefused:
		return true
	}
	return false
}

// ask sends one question from a port of its own, which nobody can guess, and
// waits for the answer.
func ask(ctx context.Context, to netip.AddrPort, query []byte) ([]byte, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	c.SetDeadline(time.Now().Add(upstreamTimeout))
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxDatagram)
	for {
		k, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:k], query) {
			return buf[:k], nil
		}
	}
}

// answers reports whether a message is an answer to a question. Pure.
func answers(reply, query []byte) bool {
	return len(reply) >= headerSize && bytes.Equal(reply[:2], query[:2]) && reply[2]&0x80 != 0
}

// askTCP is ask for answers that no datagram holds.
func askTCP(ctx context.Context, to netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := c.Write(frame(query)); err != nil {
		return nil, err
	}
	for {
		reply, err := readMessage(c)
		if err != nil {
			return nil, err
		}
		if answers(reply, query) {
			return reply, nil
		}
	}
}
