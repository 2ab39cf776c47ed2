package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
)

// listener is a published TCP port.
type listener struct{ *net.TCPListener }

// Waits after a client could not be accepted: out of descriptors, most likely.
// They come back.
const (
	firstPause = 10 * time.Millisecond
	longPause  = time.Second
)

// serve takes clients until the listener is closed.
func (l *listener) serve(s *Server, d Dialer, port uint16) {
	var pause time.Duration
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if pause == 0 { // once for all that fail in a row
				s.log.Warn("accept client of a published port", "port", l.Addr(), "err", err)
			}
			pause = min(max(2*pause, firstPause), longPause)
			if !relay.Wait(s.ctx, pause) {
				return
			}
			continue
		}
		pause = 0
		s.admit(relay.TCP{TCPConn: c}, d, port)
	}
}

// admit begins to serve a client if there is room.
func (s *Server) admit(c relay.TCP, d Dialer, port uint16) {
	if !s.streams.TryAcquire(1) {
		c.Reset()
		return
	}
	s.wg.Go(func() {
		defer s.streams.Release(1)
		s.client(c, d, port)
	})
}

// client joins a client with the guest. A guest that refuses it makes the
// client's connection end by a reset, as if it had been refused there.
func (s *Server) client(c relay.TCP, d Dialer, port uint16) {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		c.Reset()
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	guest, err := d.DialTCP(ctx, from, port)
	if err != nil {
		s.log.Debug("client of a published port", "from", from, "port", port, "err", err)
		c.Reset()
		return
	}
	relay.Streams(s.ctx, guest, c)
}
