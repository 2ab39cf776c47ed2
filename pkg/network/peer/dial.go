package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sys/unix"
)

// errSilent is a timeout, as those of the dialer itself.
var errSilent = fmt.Errorf("the other guest does not answer: %w", context.DeadlineExceeded)

// DialTCP connects to the guest whose supervisor listens at socket. ctx bounds the
// call only. The error wraps ErrRefused, ErrBusy or the end of ctx where it is one
// of these.
func DialTCP(ctx context.Context, socket string, r Request) (relay.Stream, error) {
	r.Protocol = TCP
	return dial(ctx, socket, r, newStream)
}

// DialUDP opens a flow of datagrams, as DialTCP a connection.
func DialUDP(ctx context.Context, socket string, r Request) (relay.Socket, error) {
	r.Protocol = UDP
	return dial(ctx, socket, r, newDatagrams)
}

// DialPing opens a flow of ICMP's messages, of the addresses' family, from the type on:
// echo requests, and the answers to them under the same sequence numbers. The ports of
// r are 0.
func DialPing(ctx context.Context, socket string, r Request) (relay.Socket, error) {
	r.Protocol = ICMP
	return dial(ctx, socket, r, newDatagrams)
}

func dial[C any](ctx context.Context, socket string, r Request, made func(channel) C) (conn C, err error) {
	b, err := r.encode()
	if err != nil {
		return conn, err
	}
	c, err := connect(ctx, socket)
	if err != nil {
		return conn, err
	}
	if err := ask(ctx, c, b); err != nil {
		c.Close()
		return conn, fmt.Errorf("connect to %s: %w", r.To, err)
	}
	return made(channel{c}), nil
}

// connect goes through a descriptor of the directory: the whole path may be too
// long for a socket. Where nobody listens, there was a supervisor that is gone; one
// that has stopped has its backlog full (EAGAIN) some day.
func connect(ctx context.Context, socket string) (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(socket))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is gone", ErrRefused)
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)))
	switch {
	case errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: its supervisor does not listen", ErrRefused)
	case errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("%w: its supervisor takes none", ErrBusy)
	case err != nil:
		return nil, errors.Join(err, ctx.Err())
	}
	return c.(*net.UnixConn), nil
}

// ask sends a request and waits for the answer.
func ask(ctx context.Context, c *net.UnixConn, request []byte) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer := make([]byte, answerSize+1) // longer ones are no answers
	var n int
	var err error
	if _, err = c.Write(request); err == nil {
		n, err = c.Read(answer)
	}
	switch {
	case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: its supervisor hung up", ErrRefused) // of too many, most likely
	case err != nil:
		return errors.Join(err, ctx.Err())
	}
	if err := decodeAnswer(answer[:n]); err != nil {
		return err
	}
	if !stop() { // too late: the deadline is set, or will be
		return ctx.Err()
	}
	return nil
}
