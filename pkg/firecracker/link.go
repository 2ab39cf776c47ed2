package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// link is the open connection. net/http's Transport is not used: it prints what
// a server says out of turn, follows redirects and repeats requests.
type link struct {
	conn  net.Conn
	bound *io.LimitedReader // of one answer
	in    *bufio.Reader
}

func newLink(conn net.Conn) *link {
	bound := &io.LimitedReader{R: conn}
	return &link{conn: conn, bound: bound, in: bufio.NewReader(bound)}
}

// roundTrip waits for its turn, then sends req and reads the whole answer.
func (c *Client) roundTrip(ctx context.Context, req *http.Request) (status int, body []byte, err error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
	if c.link != nil && c.link.stale() {
		c.drop()
	}
	if c.link == nil {
		conn, err := c.dial(ctx)
		if err != nil {
			return 0, nil, err
		}
		c.link = newLink(conn)
	}
	l := c.link
	// A deadline in the past ends any read or write under way.
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	status, body, last, err := l.roundTrip(req)
	if !stop() && err != nil {
		err = ctx.Err()
	}
	if err != nil || last || ctx.Err() != nil {
		c.drop()
	}
	return status, body, err
}

// drop closes the connection; the next request opens another.
func (c *Client) drop() {
	if c.link != nil {
		c.link.conn.Close()
		c.link = nil
	}
}

// roundTrip reports with last that the server will close the connection.
func (l *link) roundTrip(req *http.Request) (status int, body []byte, last bool, err error) {
	l.bound.N = maxHeaders + maxResponseBody
	broken := req.Write(l.conn)
	if broken != nil && !errors.Is(broken, unix.EPIPE) {
		return 0, nil, false, broken
	}
	// A server that turns a connection away answers before it is asked.
	resp, err := http.ReadResponse(l.in, req)
	if err != nil && broken != nil {
		return 0, nil, false, broken
	}
	if err != nil {
		return 0, nil, false, fmt.Errorf("read answer: %w", l.tooLong(err))
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, false, fmt.Errorf("read answer: %w", l.tooLong(err))
	}
	return resp.StatusCode, body, resp.Close, nil
}

// tooLong replaces the error that comes of an answer cut at the bound.
func (l *link) tooLong(err error) error {
	if l.bound.N <= 0 {
		return fmt.Errorf("it is over %d bytes", maxHeaders+maxResponseBody)
	}
	return err
}

// stale reports that the server has closed the idle connection, or has said
// something that nobody asked for.
func (l *link) stale() bool {
	if l.in.Buffered() > 0 {
		return true
	}
	sc, ok := l.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	ready := true
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ready = n != 0 || err != nil
	})
	return ready || err != nil
}
