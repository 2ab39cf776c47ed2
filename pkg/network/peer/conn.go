package peer

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sys/unix"
)

// A connection is messages of a SOCK_SEQPACKET socket: a byte that says what it
// is, and the bytes of a stream or a datagram. A stream that has ended says so; one
// that is closed without has broken.
const (
	kindData byte = 1
	kindEnd  byte = 2
)

// maxChunk is the most of a stream that is in one message, in bytes.
const maxChunk = 32 << 10

var (
	errKind = errors.New("unknown message of a peer")
	errLong = errors.New("message of a peer is too long")
)

// channel is a connection to a peer.
type channel struct{ *net.UnixConn }

// send sends one message. Messages of several goroutines do not mix.
func (c channel) send(kind byte, b []byte) error {
	parts := net.Buffers{{kind}, b}
	_, err := parts.WriteTo(c.UnixConn)
	return err
}

// readMessage reads one message from a socket that has one; io.EOF if there will be
// none.
func readMessage(fd int, b []byte) (kind byte, n int, err error) {
	var head, beyond [1]byte
	for {
		n, err = unix.Readv(fd, [][]byte{head[:], b, beyond[:]})
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case err != nil:
		return 0, 0, err
	case n == 0:
		return 0, 0, io.EOF
	case n > 1+len(b):
		return 0, 0, errLong
	}
	return head[0], n - 1, nil
}

// receive waits for a message.
func (c channel) receive(b []byte) (kind byte, n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	rerr := raw.Read(func(fd uintptr) bool {
		kind, n, err = readMessage(int(fd), b)
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		return 0, 0, rerr
	}
	return kind, n, err
}

// stream is a TCP connection between guests: a relay.Stream. One goroutine reads,
// any may write and close.
type stream struct {
	channel
	ended bool   // by the peer
	rest  []byte // of a message that did not fit
}

func newStream(c channel) relay.Stream { return &stream{channel: c} }

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 && len(p) < maxChunk {
		buf := make([]byte, maxChunk)
		n, err := s.next(buf)
		if err != nil {
			return 0, err
		}
		s.rest = buf[:n]
	}
	if len(s.rest) > 0 {
		n := copy(p, s.rest)
		s.rest = s.rest[n:]
		return n, nil
	}
	return s.next(p)
}

// next reads a message into p, which holds any.
func (s *stream) next(p []byte) (int, error) {
	if s.ended {
		return 0, io.EOF
	}
	kind, n, err := s.receive(p[:maxChunk])
	switch {
	case errors.Is(err, io.EOF):
		return 0, io.ErrUnexpectedEOF
	case err != nil:
		return 0, err
	case kind == kindEnd && n == 0:
		s.ended = true
		return 0, io.EOF
	case kind != kindData:
		return 0, errKind
	}
	return n, nil
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, maxChunk)
		if err := s.send(kindData, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// CloseWrite implements relay.Stream.
func (s *stream) CloseWrite() error { return s.send(kindEnd, nil) }

// Reset implements relay.Stream.
func (s *stream) Reset() { s.Close() }

// datagrams is a UDP flow between guests: a relay.Socket.
type datagrams struct{ channel }

func newDatagrams(c channel) relay.Socket { return datagrams{c} }

// Write sends a datagram.
func (d datagrams) Write(b []byte) (int, error) { return len(b), d.send(kindData, b) }

// Receive implements relay.Socket.
func (d datagrams) Receive(until time.Time, buffers *relay.Buffers, f func([]byte) error) error {
	raw, err := d.SyscallConn()
	if err != nil {
		return err
	}
	if err := d.SetReadDeadline(until); err != nil {
		return err
	}
	rerr := raw.Read(func(fd uintptr) (done bool) {
		buffers.With(func(b []byte) {
			kind, n, rerr := readMessage(int(fd), b)
			if done = !errors.Is(rerr, unix.EAGAIN); !done {
				return
			}
			switch err = rerr; {
			case err == nil && kind == kindData:
				err = f(b[:n])
			case err == nil:
				err = errKind
			}
		})
		return done
	})
	if rerr != nil {
		return rerr
	}
	return err
}
