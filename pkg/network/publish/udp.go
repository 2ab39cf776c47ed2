package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// flowIdle ends a UDP flow in which nothing has moved; RFC 4787, REQ-5, wants
// two minutes at least.
const flowIdle = 2 * time.Minute

// maxDatagram is the largest payload of UDP.
const maxDatagram = 65507

// packets is a published UDP port.
type packets struct{ *net.UDPConn }

// serve keeps one flow to the guest for each client.
func (c *packets) serve(s *Server, d Dialer, port uint16) {
	peers := peers{flows: map[netip.AddrPort]net.Conn{}}
	defer peers.close()
	buf := make([]byte, maxDatagram)
	for {
		k, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier answer was refused
		}
		guest := peers.get(from)
		if guest == nil {
			if guest = s.newPeer(&peers, c, d, from, port); guest == nil {
				continue
			}
		}
		guest.Write(buf[:k]) // lost, as datagrams are
	}
}

// newPeer opens a flow to the guest and copies its answers to the client.
func (s *Server) newPeer(ps *peers, c *packets, d Dialer, from netip.AddrPort, port uint16) net.Conn {
	if !s.flows.TryAcquire(1) {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	guest, err := d.DialUDP(ctx, from, port)
	if err != nil {
		s.flows.Release(1)
		s.log.Debug("client of a published port", "from", from, "err", err)
		return nil
	}
	ps.add(from, guest)
	s.wg.Go(func() {
		defer s.flows.Release(1)
		defer ps.remove(from)
		stop := context.AfterFunc(s.ctx, func() { guest.Close() })
		defer stop()
		buf := make([]byte, maxDatagram)
		for {
			guest.SetReadDeadline(time.Now().Add(flowIdle))
			k, err := guest.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.WriteToUDPAddrPort(buf[:k], from); err != nil {
				return
			}
		}
	})
	return guest
}

// peers are the clients of a published UDP port.
type peers struct {
	mu    sync.Mutex
	flows map[netip.AddrPort]net.Conn
}

func (p *peers) get(from netip.AddrPort) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flows[from]
}

func (p *peers) add(from netip.AddrPort, c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows[from] = c
}

func (p *peers) remove(from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.flows[from]; c != nil {
		c.Close()
		delete(p.flows, from)
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.flows {
		c.Close()
	}
}
