package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// sockets are those of one address, at one port.
type sockets struct {
	udp net.PacketConn
	tcp net.Listener
}

func (s sockets) close() {
	s.udp.Close()
	s.tcp.Close()
}

// listenTries bounds the search for a port that is free everywhere.
const listenTries = 16

// listenAll takes a port for UDP and TCP at each of some addresses, which the host
// need not have yet.
func listenAll(ctx context.Context, at []netip.Addr) (all []sockets, port uint16, err error) {
	for range listenTries {
		port, all = 0, nil
		for _, a := range at {
			var s sockets
			if s, err = listenAt(ctx, netip.AddrPortFrom(a, port)); err != nil {
				break
			}
			all, port = append(all, s), uint16(s.udp.LocalAddr().(*net.UDPAddr).Port)
		}
		if err == nil {
			return all, port, nil
		}
		for _, s := range all {
			s.close()
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, 0, err
}

// listenAt takes a port, or with 0 any, for UDP and TCP.
func listenAt(ctx context.Context, at netip.AddrPort) (sockets, error) {
	l := net.ListenConfig{Control: freeBind}
	udp, err := l.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return sockets{}, err
	}
	tcp, err := l.Listen(ctx, "tcp", udp.LocalAddr().String())
	if err != nil {
		udp.Close()
		return sockets{}, err
	}
	return sockets{udp, tcp}, nil
}

// freeBind lets a socket have an address that the host does not have yet: by this
// option one of IPv6 too.
func freeBind(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); cerr != nil {
		return cerr
	}
	return err
}
