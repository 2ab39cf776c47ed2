package network

import (
	"net"
	"net/netip"
	"slices"
)

// The sockets at which a guest asks for names are at a port of the gateway that all
// guests of the network reach. Others ask their own.

// guestPackets is a socket that hears one guest only.
type guestPackets struct {
	net.PacketConn
	guest []netip.Addr
}

func (c guestPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || comesFrom(from, c.guest) {
			return n, from, err
		}
	}
}

// guestListener is a listener that takes one guest only.
type guestListener struct {
	net.Listener
	guest []netip.Addr
}

func (l guestListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || comesFrom(c.RemoteAddr(), l.guest) {
			return c, err
		}
		c.Close()
	}
}

func comesFrom(a net.Addr, guest []netip.Addr) bool {
	at, err := netip.ParseAddrPort(a.String())
	return err == nil && slices.Contains(guest, at.Addr().Unmap())
}
