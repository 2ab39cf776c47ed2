package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstWait ends a flow that nobody has answered.
	firstWait = 10 * time.Second
	// idleWait ends a flow in which nothing has moved since; RFC 4787, REQ-5,
	// wants two minutes at least.
	idleWait = 2 * time.Minute
	// maxDatagram is the largest payload of UDP, in bytes.
	maxDatagram = 65507
)

// Socket is one end of datagrams. Its methods are safe for concurrent use.
type Socket interface {
	io.WriteCloser // each Write is a datagram
	// Receive waits for a datagram and gives it to f, in a buffer that is f's
	// until it returns. After until it is os.ErrDeadlineExceeded.
	Receive(until time.Time, buffers *Buffers, f func([]byte) error) error
}

// Buffers are shared by those who wait for datagrams: most wait most of the
// time, and need none then.
type Buffers struct{ pool sync.Pool }

// With lends a buffer that holds every datagram.
func (b *Buffers) With(f func([]byte)) {
	buf, ok := b.pool.Get().(*[maxDatagram]byte)
	if !ok {
		buf = new([maxDatagram]byte)
	}
	defer b.pool.Put(buf)
	f(buf[:])
}

// UDP is a connected socket of the host.
type UDP struct{ *net.UDPConn }

// Receive implements Socket.
func (c UDP) Receive(until time.Time, buffers *Buffers, f func([]byte) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if err := c.SetReadDeadline(until); err != nil {
		return err
	}
	rerr := raw.Read(func(fd uintptr) (done bool) {
		buffers.With(func(b []byte) {
			var n int
			for n, err = unix.Read(int(fd), b); errors.Is(err, unix.EINTR); n, err = unix.Read(int(fd), b) {
			}
			if done = !errors.Is(err, unix.EAGAIN); done && err == nil {
				err = f(b[:n])
			}
		})
		return done
	})
	if rerr != nil {
		return rerr
	}
	return err
}

// Flows are the UDP flows of one kind, at most max. One more ends another: that
// which would be over first anyway, so that many who are never answered do not
// end the flow of one who is.
type Flows struct {
	max         int
	first, idle time.Duration
	buffers     Buffers

	mu  sync.Mutex
	all map[*Flow]struct{}
}

// NewFlows makes an empty set.
func NewFlows(max int) *Flows {
	return &Flows{max: max, first: firstWait, idle: idleWait, all: map[*Flow]struct{}{}}
}

// Flow is the traffic of two sockets. Its methods are safe for concurrent use.
type Flow struct {
	set      *Flows
	end      func()
	brief    bool
	last     atomic.Int64 // when something moved, nanoseconds since 1970
	answered atomic.Bool
}

// dnsPort is that of a service of one question and one answer: RFC 4787, REQ-5
// a, lets well-known ports have a shorter time.
const dnsPort = 53

// Open adds a flow to a port. end is called once, when the flow is over: it
// closes the sockets, and does not call back.
func (s *Flows) Open(port uint16, end func()) *Flow {
	f := &Flow{set: s, end: end, brief: port == dnsPort}
	f.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	var oldest *Flow
	if len(s.all) >= s.max {
		oldest = s.oldest()
	}
	s.all[f] = struct{}{}
	s.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return f
}

// oldest is the flow that will be over first.
func (s *Flows) oldest() *Flow {
	var out *Flow
	var first time.Time
	for f := range s.all {
		if at := f.until(); out == nil || at.Before(first) {
			out, first = f, at
		}
	}
	return out
}

// Len is how many flows there are.
func (s *Flows) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// Moved says that a datagram went through, or came as an answer.
func (f *Flow) Moved(answer bool) {
	f.last.Store(time.Now().UnixNano())
	if answer {
		f.answered.Store(true)
	}
}

// until is when the flow is over if nothing moves.
func (f *Flow) until() time.Time {
	wait := f.set.first
	if f.answered.Load() && !f.brief {
		wait = f.set.idle
	}
	return time.Unix(0, f.last.Load()).Add(wait)
}

// Close ends the flow. Idempotent.
func (f *Flow) Close() {
	f.set.mu.Lock()
	_, open := f.set.all[f]
	delete(f.set.all, f)
	f.set.mu.Unlock()
	if open {
		f.end()
	}
}

// Copy moves datagrams from src to dst until the flow is over, an end has failed
// or ctx ends. It closes the flow. answer says which way they go.
func (f *Flow) Copy(ctx context.Context, dst io.Writer, src Socket, answer bool) {
	defer f.Close()
	stop := context.AfterFunc(ctx, f.Close)
	defer stop()
	move := func(b []byte) error {
		f.Moved(answer)
		_, err := dst.Write(b)
		return err
	}
	for {
		until := f.until()
		if !until.After(time.Now()) {
			return
		}
		err := src.Receive(until, &f.set.buffers, move)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
