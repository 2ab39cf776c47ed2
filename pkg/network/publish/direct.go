package publish

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
)

// keepAlive finds out that the other side has gone.
const keepAlive = 2 * time.Minute

// Direct is a guest that the host reaches by its own routes. The guest sees the
// host's address on the way there, not the client's.
type Direct netip.Addr

// DialTCP implements Dialer.
func (g Direct) DialTCP(ctx context.Context, _ netip.AddrPort, port uint16) (relay.Stream, error) {
	c, err := g.dial(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	return relay.TCP{TCPConn: c.(*net.TCPConn)}, nil
}

// DialUDP implements Dialer.
func (g Direct) DialUDP(ctx context.Context, _ netip.AddrPort, port uint16) (relay.Socket, error) {
	c, err := g.dial(ctx, "udp", port)
	if err != nil {
		return nil, err
	}
	return relay.UDP{UDPConn: c.(*net.UDPConn)}, nil
}

func (g Direct) dial(ctx context.Context, proto string, port uint16) (net.Conn, error) {
	d := net.Dialer{KeepAlive: keepAlive}
	return d.DialContext(ctx, proto, netip.AddrPortFrom(netip.Addr(g), port).String())
}
