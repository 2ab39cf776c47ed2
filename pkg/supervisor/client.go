package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
)

// ErrGone says that no supervisor answers: the container does not run.
var ErrGone = errors.New("supervisor is gone")

// Client is one connection to a supervisor. Reading and writing may happen at
// the same time; writes are safe for concurrent use.
type Client struct {
	conn net.Conn
	mu   sync.Mutex // of writes
	buf  []byte
}

// NewClient takes a connection over and opens it with a command.
func NewClient(conn net.Conn, c Command) (*Client, error) {
	cl := &Client{conn: conn, buf: make([]byte, api.MaxData)}
	if err := api.WriteMessage(conn, api.KindOpen, c); err != nil {
		conn.Close()
		return nil, err
	}
	return cl, nil
}

// Dial connects to the supervisor of the container with these paths. The error
// wraps ErrGone if there is none.
func Dial(ctx context.Context, p state.Paths, c Command) (*Client, error) {
	dir, err := os.Open(p.Dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer dir.Close()
	// Through a descriptor: the whole path may be too long for a socket.
	path := state.Paths{Dir: fmt.Sprintf("/proc/self/fd/%d", dir.Fd())}.Control()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to supervisor: %w", err)
	}
	return NewClient(conn, c)
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Read returns the next frame: output, a Reply or the Final. Payloads are
// valid until the next call.
func (c *Client) Read() (api.Kind, []byte, error) { return api.ReadFrame(c.conn, c.buf) }

// Send sends a further command of an attached connection.
func (c *Client) Send(cmd Command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return api.WriteMessage(c.conn, api.KindRequest, cmd)
}

// Input sends standard input, at most api.MaxData bytes; none is its end.
func (c *Client) Input(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return api.WriteFrame(c.conn, api.KindStdin, b)
}

// Final waits for the end of the container and of its supervisor. Output that
// arrives meanwhile goes to out, if it is not nil.
func (c *Client) Final(out func(api.Kind, []byte) error) (Final, error) {
	var final *Final
	for {
		kind, b, err := c.Read()
		if err != nil {
			return c.end(final, err)
		}
		switch kind {
		case api.KindExit:
			final = &Final{}
			if err := api.Decode(b, final); err != nil {
				return Final{}, err
			}
		case api.KindReply: // refused
			var r Reply
			if err := api.Decode(b, &r); err != nil {
				return Final{}, err
			}
			return Final{}, errors.New(r.Error)
		case api.KindStdout, api.KindStderr:
			if out != nil {
				if err := out(kind, b); err != nil {
					return Final{}, err
				}
			}
		}
	}
}

// end tells a supervisor that finished from one that was lost.
func (c *Client) end(final *Final, err error) (Final, error) {
	if final != nil {
		return *final, nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Final{}, ErrGone
	}
	return Final{}, err
}

// Reply waits for the answer to an operation that is answered at once.
func (c *Client) Reply() (Reply, error) {
	var r Reply
	err := api.ReadMessage(c.conn, api.KindReply, &r)
	if errors.Is(err, io.EOF) {
		err = ErrGone
	}
	return r, err
}

// LetGo ends a pause that this connection holds, and waits for the answer. A pause
// that somebody else has begun meanwhile goes on.
func (c *Client) LetGo() (Reply, error) {
	if conn, ok := c.conn.(*net.UnixConn); ok {
		if err := conn.CloseWrite(); err != nil {
			return Reply{}, err
		}
	}
	return c.Reply()
}
