package portmux

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// conn is a stream without half-close: after Close neither direction works,
// and the other end reads what was written before, then io.EOF.
type conn struct {
	*yamux.Stream
	port   uint32
	closed atomic.Bool
}

func newConn(s *yamux.Stream, port uint32) *conn { return &conn{Stream: s, port: port} }

func (c *conn) Read(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Stream.Read(p)
	if err != nil && c.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Stream.Write(p)
	if err != nil && c.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

// Close never blocks: the end of the stream is announced behind the bytes that
// are on their way, and a peer that does not read could delay that for ever.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.Stream.SetReadDeadline(time.Unix(1, 0)) // ends a Read that waits
	go c.Stream.Close()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return Addr(c.port) }
func (c *conn) RemoteAddr() net.Addr { return Addr(c.port) }

// Addr is a port of a Session.
type Addr uint32

// Network is "portmux".
func (Addr) Network() string { return "portmux" }

func (a Addr) String() string { return fmt.Sprintf("port %d", uint32(a)) }

// listener hands out the connections to one port.
type listener struct {
	session *Session
	port    uint32
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once

	mu      sync.Mutex
	waiting int  // in conns or on the way there
	ended   bool // nothing may be added to conns
}

// reserve takes a place in the backlog, so that the answer that is sent to the
// other end is true.
func (l *listener) reserve() (func(net.Conn), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.waiting >= backlog {
		return nil, ErrRefused
	}
	l.waiting++
	return l.deliver, nil
}

func (l *listener) deliver(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		c.Close()
		return
	}
	l.conns <- c // has room: waiting <= backlog
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		l.mu.Lock()
		l.waiting--
		l.mu.Unlock()
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and closes the connections that nobody has accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.session.mu.Lock()
		delete(l.session.listeners, l.port)
		l.session.mu.Unlock()
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return Addr(l.port) }
