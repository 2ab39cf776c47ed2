// Package agent is the host's side of the agent protocol (agent/api): it waits
// for a guest to report, makes control calls and opens stdio connections over
// the VM's vsock socket.
//
// It is not a transport and starts nothing: a driver of pkg/vmm offers the
// socket. It keeps no state on disk but the socket that a Listener waits on.
//
// Every byte from a guest is hostile. Frames, ids, codes and counts are checked,
// texts are bounded and cleaned, and a guest that breaks the protocol loses its
// connection: what memory it can cost is a few frames. Nothing that a guest says
// becomes a path.
//
// Lifecycle: Listen before the VM starts, Accept once, then use the Client until
// Exits is closed, and Close it. Dial and OpenStdio make further connections,
// from any process that knows the VM's token.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

const (
	maxSocketPath = 107              // of struct sockaddr_un
	helloTimeout  = 30 * time.Second // for the first frame of one connection
	maxCandidates = 8                // connections that may owe their hello at once
)

// ErrRefused is wrapped by errors of a connection that nobody in the guest accepts.
var ErrRefused = errors.New("the guest refused the connection")

// Listener waits for a VM's agent.
type Listener struct {
	l    *net.UnixListener
	path string
	once sync.Once
}

// Listen makes the socket that the guest's call to api.ReadyPort arrives at:
// vsockPath_1024, mode 0600. One left by a dead process is replaced. Call it
// before the VM starts.
func Listen(vsockPath string) (*Listener, error) {
	path := vsockPath + "_" + strconv.Itoa(api.ReadyPort)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path %s: longer than %d bytes", path, maxSocketPath)
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the agent: %w", err)
	}
	// The folder is 0700, so nobody could connect before this.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return &Listener{l: l, path: path}, nil
}

// removeSocket removes a stale socket, and nothing that is not a socket.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way and not a socket", path)
	}
	return os.Remove(path)
}

// Close stops listening and removes the socket. Idempotent.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() { err = l.l.Close() }) // unlinks
	return err
}

// Accept waits for the agent's hello and returns its control connection. The
// listener is closed in any case. Connections that say something else, or
// nothing, are dropped and do not hold up the right one.
func (l *Listener) Accept(ctx context.Context) (*Client, error) {
	defer l.Close()
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer func() {
		cancel()
		l.Close() // ends the helpers
		helpers.Wait()
	}()
	found := make(chan *Client)
	failed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var lastMu sync.Mutex
	var last error // why the latest candidate was dropped
	helpers.Go(func() {
		slots := make(chan struct{}, maxCandidates)
		for {
			conn, err := l.l.Accept()
			if err != nil {
				failed <- err
				return
			}
			select {
			case slots <- struct{}{}:
			default:
				conn.Close()
				continue
			}
			helpers.Go(func() {
				defer func() { <-slots }()
				c, err := greet(ctx, conn)
				if err != nil {
					lastMu.Lock()
					last = err
					lastMu.Unlock()
					return
				}
				select {
				case found <- c:
				case <-ctx.Done():
					c.Close()
				}
			})
		}
	})
	select {
	case c := <-found:
		return c, nil
	case err := <-failed:
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		lastMu.Lock()
		defer lastMu.Unlock()
		if last != nil {
			err = fmt.Errorf("%w (last caller: %w)", err, last)
		}
		return nil, fmt.Errorf("wait for the agent: %w", err)
	}
}

// greet reads a Hello and makes a Client of the connection; else it closes it.
func greet(ctx context.Context, conn net.Conn) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var h api.Hello
	err := readHello(conn, &h)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return newClient(conn, h), nil
}

func readHello(r io.Reader, h *api.Hello) error {
	k, b, err := api.ReadFrame(r, nil)
	if err != nil {
		return fmt.Errorf("read hello: %w", unexpected(err))
	}
	if k == api.KindReply {
		return refusal(b)
	}
	if k != api.KindHello {
		return fmt.Errorf("frame of kind %d where a hello belongs: %w", k, api.ErrFrame)
	}
	if err := api.Decode(b, h); err != nil {
		return err
	}
	if h.Version != api.Version {
		return fmt.Errorf("the agent speaks protocol version %d, this program %d", h.Version, api.Version)
	}
	h.Clean()
	return nil
}

// refusal is the error in a Reply that comes instead of an answer to Open.
func refusal(b []byte) error {
	var r api.Reply
	if err := api.Decode(b, &r); err != nil {
		return err
	}
	if r.Error == nil {
		return fmt.Errorf("reply without a call: %w", api.ErrFrame)
	}
	r.Error.Clean()
	return fmt.Errorf("%w: %w", ErrRefused, r.Error)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Dial makes another control connection to a guest that is set up.
func Dial(ctx context.Context, vsockPath, token string) (*Client, error) {
	conn, err := open(ctx, vsockPath, api.Open{Version: api.Version, Token: token, Purpose: api.PurposeControl})
	if err != nil {
		return nil, err
	}
	return greet(ctx, conn)
}

// open connects to the agent and sends the first frame.
func open(ctx context.Context, vsockPath string, o api.Open) (net.Conn, error) {
	conn, err := connect(ctx, vsockPath, api.AgentPort)
	if err != nil {
		return nil, err
	}
	if err := api.WriteMessage(conn, api.KindOpen, o); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open %s connection: %w", o.Purpose, err)
	}
	return conn, nil
}

// connectTimeout bounds the handshake with the VMM when ctx has no deadline.
const connectTimeout = 30 * time.Second

// connect reaches a port of the guest by Firecracker's host-side protocol
// (docs/vsock.md there): "CONNECT <port>\n" in one write, "OK <n>\n" back, and
// every byte after that newline is the guest's.
func connect(ctx context.Context, vsockPath string, port uint32) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", vsockPath)
	if err != nil {
		return nil, fmt.Errorf("connect to the VM: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = connectPort(conn, port)
	if !stop() && err != nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to guest port %d: %w", port, err)
	}
	return conn, conn.SetDeadline(time.Time{})
}

func connectPort(conn io.ReadWriter, port uint32) error {
	if _, err := io.WriteString(conn, "CONNECT "+strconv.FormatUint(uint64(port), 10)+"\n"); err != nil {
		return err
	}
	line, err := readLine(conn)
	if errors.Is(err, io.EOF) {
		return ErrRefused // the VMM closes if nobody listens
	}
	if err != nil {
		return err
	}
	n, ok := strings.CutPrefix(line, "OK ")
	if !ok {
		return fmt.Errorf("answer %q: %w", api.Clean(line, 64), api.ErrFrame)
	}
	if _, err := strconv.ParseUint(n, 10, 32); err != nil {
		return fmt.Errorf("answer %q: %w", api.Clean(line, 64), api.ErrFrame)
	}
	return nil
}

// readLine reads up to the newline and not a byte further.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < 32; line = append(line, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
	}
	return "", fmt.Errorf("answer %q without an end: %w", api.Clean(string(line), 64), api.ErrFrame)
}
