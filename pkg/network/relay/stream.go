// Package relay carries bytes between two TCP connections, and datagrams
// between two UDP sockets, of whatever stacks: the host's, or one in user space.
//
// What it is not: a decision who may talk to whom. That is made before.
//
// Lifecycle: a call returns when all is over and both sides are closed.
package relay

import (
	"context"
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Stream is a TCP connection. Its methods are safe for concurrent use.
type Stream interface {
	io.ReadWriteCloser // Close may wait until the peer has all that was written
	// CloseWrite ends what this side sends.
	CloseWrite() error
	// Reset ends the connection in a way that its peer cannot take for its end.
	Reset()
}

// TCP is a connection of the host's stack.
type TCP struct{ *net.TCPConn }

// Reset implements Stream.
func (c TCP) Reset() {
	c.SetLinger(0)
	c.Close()
}

// Streams copies both ways until both have ended, one has failed or ctx ends.
// A half-closed connection stays half-closed; a connection that breaks on one
// side is reset on the other. Both are closed, b first: it is the one that may
// hold a descriptor.
func Streams(ctx context.Context, a, b Stream) {
	defer a.Close()
	defer b.Close()
	// Half a stream must not look like a whole one.
	fail := func() {
		b.Reset()
		a.Reset()
	}
	stop := context.AfterFunc(ctx, fail)
	defer stop()
	done := make(chan error, 2)
	go func() { done <- oneWay(b, a) }()
	go func() { done <- oneWay(a, b) }()
	for range 2 {
		if err := <-done; err != nil {
			fail()
		}
	}
}

func oneWay(dst, src Stream) error {
	if err := carry(dst, src); err != nil {
		return err
	}
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return err
	}
	return nil
}

// What is moved at a time, in bytes: by a connection at first, and by one that has
// had so much to move. The second is what one segment holds at the largest MTU, with
// room for the longest headers: a few bytes more would be a segment of their own.
const (
	firstBuffer = 32 << 10
	fullBuffer  = 64<<10 - 136
)

// carry copies until src ends. It is no io.Copy, which would use splice(2), at the
// cost of four more descriptors for each connection.
func carry(dst io.Writer, src io.Reader) error {
	buf := make([]byte, firstBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == len(buf) && n < fullBuffer:
			buf = make([]byte, fullBuffer)
		}
	}
}
