// Package nameserver answers a guest's questions for names: those it knows
// itself, and all others as the host's name servers answer them.
//
// What it is not: a resolver or a cache. A question that is not for a name of
// its own is passed on as it is, so that every type of record works.
//
// Lifecycle: a Server has no state but its limits; each Serve call ends with
// its context, and returns when nothing of it is left.
package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Config describes what a server answers. Its functions are called for each
// question, concurrently: a host moves, and VMs come and go.
type Config struct {
	// Upstreams are asked for what is not known here, in this order, until one
	// answers. Without any, as in an internal network, what is not known here
	// does not exist.
	Upstreams func() []netip.AddrPort
	// Lookup tells the addresses of a name, which is in lower case and has no
	// final dot. A known name without an address of the family asked for has no
	// such record; one that is not known is asked upstream.
	Lookup func(name string) (addrs []netip.Addr, known bool)
	// Reverse tells the names of an address, without a final dot; nil for none.
	Reverse func(netip.Addr) []string
	// Queries is how many questions may be with upstreams at the same time. One
	// more is lost, if it came by UDP: it will be asked again.
	Queries int
	// Streams is how many TCP connections ServeStream has at the same time.
	Streams int
	Log     *slog.Logger
}

const (
	// maxQuestion is the largest datagram that is read as a question, in bytes.
	maxQuestion = 4096
	// streamIdle ends a connection that asks nothing: RFC 7766 section 6.2.3.
	streamIdle = 30 * time.Second
	// acceptPause is how long a listener that fails, of too many descriptors
	// most likely, is left alone.
	acceptPause = 100 * time.Millisecond
)

// Server answers questions. Its methods are safe for concurrent use.
type Server struct {
	c                Config
	queries, streams *semaphore.Weighted
}

// New makes a server.
func New(c Config) *Server {
	if c.Upstreams == nil {
		c.Upstreams = func() []netip.AddrPort { return nil }
	}
	if c.Lookup == nil {
		c.Lookup = func(string) ([]netip.Addr, bool) { return nil, false }
	}
	if c.Reverse == nil {
		c.Reverse = func(netip.Addr) []string { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{c: c, queries: semaphore.NewWeighted(int64(c.Queries)), streams: semaphore.NewWeighted(int64(c.Streams))}
}

// ServePacket answers questions that come by UDP until ctx ends or the socket is
// closed. It closes the socket.
func (s *Server) ServePacket(ctx context.Context, c net.PacketConn) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	buf := make([]byte, maxQuestion)
	for {
		k, from, err := c.ReadFrom(buf)
		switch {
		case errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || ctx.Err() != nil:
			return
		case err != nil:
			if !wait(ctx, acceptPause) { // mostly an earlier answer that was refused
				return
			}
			continue
		}
		q := decode(buf[:k])
		reply, upstreams := s.known(q)
		if reply != nil {
			c.WriteTo(fit(reply, q.room), from)
		}
		if len(upstreams) == 0 || !s.queries.TryAcquire(1) {
			continue
		}
		q.raw = slices.Clone(q.raw)
		wg.Go(func() {
			defer s.queries.Release(1)
			c.WriteTo(fit(s.resolve(ctx, upstreams, q, ask), q.room), from)
		})
	}
}

// ServeStream answers questions that come by TCP until ctx ends or the listener
// is closed. It closes the listener.
func (s *Server) ServeStream(ctx context.Context, l net.Listener) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var failed bool
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil && !failed { // once for all that fail in a row
			s.c.Log.Warn("accept a question for a name", "at", l.Addr(), "err", err)
		}
		failed = err != nil
		switch {
		case failed:
			wait(ctx, acceptPause)
		case !s.streams.TryAcquire(1):
			c.Close()
		default:
			wg.Go(func() {
				defer s.streams.Release(1)
				s.ServeConn(ctx, c)
			})
		}
	}
}

// wait waits, or reports false at the end of ctx.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// ServeConn answers the questions of one TCP connection, one after the other:
// RFC 1035 section 4.2.2. It closes the connection.
func (s *Server) ServeConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for {
		c.SetDeadline(time.Now().Add(streamIdle))
		b, err := readMessage(c)
		if err != nil {
			return
		}
		q := decode(b)
		reply, upstreams := s.known(q)
		if len(upstreams) > 0 {
			if s.queries.Acquire(ctx, 1) != nil {
				return
			}
			reply = s.resolve(ctx, upstreams, q, askTCP)
			s.queries.Release(1)
		}
		if reply == nil {
			return
		}
		c.SetDeadline(time.Now().Add(streamIdle))
		if _, err := c.Write(frame(reply)); err != nil {
			return
		}
	}
}

// readMessage reads a message with its length before it.
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// frame puts a message's length before it.
func frame(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)
}
