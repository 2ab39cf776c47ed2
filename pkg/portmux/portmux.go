// Package portmux carries many stream connections, each to a numbered port,
// over one duplex byte stream such as a virtio-serial port.
//
// It is hashicorp/yamux with three things added: a port in front of each
// stream and an answer to it, so that a dial to a port without a listener
// fails as it does in TCP and vsock; a guard that checks every frame of the
// other end, which may be a hostile guest; and the close semantics of vsock:
// there is no half-close. It is not a transport: it neither opens nor reopens
// the byte stream, and it has no timeouts of its own, since a guest that is
// emulated, paused or swapped out is slow but not gone.
//
// Lifecycle: a Session lives until Close, until the byte stream ends or until
// the other end breaks the protocol. All of its connections and listeners end
// with it: readers get what has arrived, then io.EOF.
//
// The host end bounds what a guest can make it hold: maxInbound connections
// that the guest opened, each counted until both ends have closed it, a window
// of 256 KiB of unread bytes for each connection, and nothing else.
package portmux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// ErrRefused is returned by Dial when nobody listens on the port at the other end.
var ErrRefused = errors.New("connection refused")

// ErrTooMany is returned by Dial when the session is full.
var ErrTooMany = errors.New("too many connections")

const (
	maxOutbound = 1023 // connections that the host opened, as in Firecracker's vsock
	maxInbound  = 128  // connections that the guest opened
	backlog     = 64   // connections that wait in a Listener
)

// Answers to the port number that opens a stream.
const (
	accepted byte = 0
	refused  byte = 1
)

// Handler decides about a connection of the other end to a port on which
// nobody listens. It returns the function that serves the connection and
// closes it, or an error to refuse. It runs in a goroutine of its own.
type Handler func(port uint32) (serve func(net.Conn), err error)

// Session is one end of the multiplexed stream. Safe for concurrent use.
type Session struct {
	mux      *yamux.Session
	guard    *guard
	fallback Handler

	mu        sync.Mutex
	listeners map[uint32]*listener
	closed    bool
}

// Option changes a Session at its creation.
type Option func(*Session)

// WithHandler serves connections to ports that have no Listener.
func WithHandler(h Handler) Option {
	return func(s *Session) { s.fallback = h }
}

// Host starts the host's end on rw and owns rw from then on. Closing rw must
// end a Read or Write that is under way.
func Host(rw io.ReadWriteCloser, options ...Option) (*Session, error) {
	return open(rw, yamux.Client, hostRole(), options)
}

// Guest starts the guest's end on rw and owns rw from then on.
func Guest(rw io.ReadWriteCloser, options ...Option) (*Session, error) {
	return open(rw, yamux.Server, guestRole(), options)
}

type starter func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)

func open(rw io.ReadWriteCloser, start starter, r role, options []Option) (*Session, error) {
	s := &Session{guard: newGuard(rw, r), listeners: make(map[uint32]*listener)}
	for _, o := range options {
		o(s)
	}
	mux, err := start(s.guard, config())
	if err != nil {
		return nil, fmt.Errorf("start multiplexer: %w", err)
	}
	s.mux = mux
	go s.acceptLoop()
	return s, nil
}

func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.StreamOpenTimeout = 0
	// A connection that one end has closed stays until the other end has read
	// it all, however slowly: a timeout here would cut off a paused pager.
	c.StreamCloseTimeout = 0
	c.ConnectionWriteTimeout = 1000 * time.Hour
	// More than the guard lets in, so that yamux never has to reset a stream
	// from its reading loop.
	c.AcceptBacklog = maxOutbound + 1
	// The peer chooses what yamux would log.
	c.LogOutput = io.Discard
	return c
}

// Dial connects to port at the other end. It waits, bounded by ctx, for an
// other end that is not up yet.
func (s *Session) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	if !s.guard.reserve() {
		return nil, fmt.Errorf("dial port %d: %w", port, ErrTooMany)
	}
	type result struct {
		c   net.Conn
		err error
	}
	// In a goroutine, since opening a stream blocks while the byte stream does.
	done := make(chan result, 1)
	go func() {
		c, err := s.dial(ctx, port)
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("dial port %d: %w", port, r.err)
		}
		return r.c, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.c != nil {
				r.c.Close()
			}
		}()
		return nil, fmt.Errorf("dial port %d: %w", port, ctx.Err())
	}
}

func (s *Session) dial(ctx context.Context, port uint32) (net.Conn, error) {
	stream, err := s.mux.OpenStream()
	if err != nil {
		return nil, err
	}
	c := newConn(stream, port)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	if err := handshake(c, port); err != nil {
		stop()
		c.Close()
		return nil, err
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return c, nil
}

// handshake says which port a new stream is for and reads the answer.
func handshake(c net.Conn, port uint32) error {
	var hello [4]byte
	binary.BigEndian.PutUint32(hello[:], port)
	if _, err := c.Write(hello[:]); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if answer[0] != accepted {
		return ErrRefused
	}
	return nil
}

// Listen accepts connections from the other end to port.
func (s *Session) Listen(port uint32) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("listen on port %d: %w", port, net.ErrClosed)
	}
	if s.listeners[port] != nil {
		return nil, fmt.Errorf("listen on port %d: port is in use", port)
	}
	l := &listener{session: s, port: port, conns: make(chan net.Conn, backlog), done: make(chan struct{})}
	s.listeners[port] = l
	return l, nil
}

// Close ends the session, its connections and its listeners. Idempotent.
func (s *Session) Close() error {
	return s.mux.Close()
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

func (s *Session) acceptLoop() {
	for {
		stream, err := s.mux.AcceptStream()
		if err != nil {
			break
		}
		go s.accept(stream)
	}
	s.mux.Close()
	s.mu.Lock()
	s.closed = true
	all := make([]*listener, 0, len(s.listeners))
	for _, l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		l.Close()
	}
}

// accept reads the port of an incoming stream and hands it to whom it is for.
func (s *Session) accept(stream *yamux.Stream) {
	var hello [4]byte
	if _, err := io.ReadFull(stream, hello[:]); err != nil {
		stream.Close()
		return
	}
	port := binary.BigEndian.Uint32(hello[:])
	c := newConn(stream, port)
	serve, err := s.route(port)
	if err != nil {
		c.Write([]byte{refused}) // the close says the same
		c.Close()
		return
	}
	if _, err := c.Write([]byte{accepted}); err != nil {
		c.Close()
	}
	serve(c)
}

func (s *Session) route(port uint32) (func(net.Conn), error) {
	s.mu.Lock()
	l := s.listeners[port]
	s.mu.Unlock()
	switch {
	case l != nil:
		return l.reserve()
	case s.fallback != nil:
		return s.fallback(port)
	default:
		return nil, ErrRefused
	}
}
