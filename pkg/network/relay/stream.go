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
	_, err := io.Copy(plainWriter{dst}, plainReader{src})
	if err != nil {
		return err
	}
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return err
	}
	return nil
}

// plainReader and plainWriter hide what io.Copy would use instead of a buffer:
// splice(2) would cost four more descriptors for each connection.
type (
	plainReader struct{ io.Reader }
	plainWriter struct{ io.Writer }
)
