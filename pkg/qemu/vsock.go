package qemu

import (
	"bufio"
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
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/portmux"
)

const (
	maxConnections = 1023 // as in Firecracker
	maxConnectLine = 32   // bytes of "CONNECT <port>\n"
	firstHostPort  = 1 << 30
)

// vsock serves the host side of Firecracker's vsock protocol on a unix socket
// and carries its connections over the guest's port.
type vsock struct {
	path     string
	listener *net.UnixListener
	mux      *portmux.Session
	slots    chan struct{}
	wg       sync.WaitGroup

	ctx    context.Context // ends with the VM
	cancel context.CancelFunc

	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	closed   bool
	hostPort uint32
}

// openVsock listens at path and owns port, the host's end of the guest's port.
func openVsock(path string, port net.Conn) (*vsock, error) {
	l, err := listenPrivate(path)
	if err != nil {
		return nil, err
	}
	v := &vsock{
		path: path, listener: l,
		slots: make(chan struct{}, maxConnections), conns: make(map[net.Conn]struct{}),
		hostPort: firstHostPort,
	}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.mux, err = portmux.Host(port, portmux.WithHandler(v.fromGuest))
	if err != nil {
		l.Close()
		return nil, err
	}
	v.wg.Add(1)
	go v.acceptLoop()
	return v, nil
}

// listenPrivate makes a unix socket that only this user can connect to, in
// place of one that a killed VMM has left.
func listenPrivate(path string) (*net.UnixListener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen for vsock: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("listen for vsock: %s exists and is no socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale vsock socket: %w", err)
		}
	}
	// The file takes its mode from the socket, so it never exists with a wider one.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmod)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for vsock: %w", err)
	}
	return l.(*net.UnixListener), nil
}

func (v *vsock) acceptLoop() {
	defer v.wg.Done()
	for {
		c, err := v.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: others will be closed
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-v.ctx.Done():
				return
			}
		}
		if !v.admit(c) {
			c.Close()
		}
	}
}

// admit starts serving c unless the VM is full or ending, or c is another
// user's: the mode of the socket has let it through, but a mode can be changed.
func (v *vsock) admit(c *net.UnixConn) bool {
	if !sameUser(c) {
		return false
	}
	select {
	case v.slots <- struct{}{}:
	default:
		return false
	}
	if !v.track(c) {
		<-v.slots
		return false
	}
	go func() {
		defer func() { <-v.slots }()
		defer v.untrack(c)
		v.fromHost(c)
	}()
	return true
}

func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	var perr error
	err = raw.Control(func(fd uintptr) {
		peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return err == nil && perr == nil && (peer.Uid == 0 || int(peer.Uid) == os.Geteuid())
}

// track makes close end c and wait for whoever serves it.
func (v *vsock) track(c net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return false
	}
	v.conns[c] = struct{}{}
	v.wg.Add(1)
	return true
}

func (v *vsock) untrack(c net.Conn) {
	c.Close()
	v.mu.Lock()
	delete(v.conns, c)
	v.mu.Unlock()
	v.wg.Done()
}

// fromHost serves a connection of the host: CONNECT, OK, then raw bytes.
func (v *vsock) fromHost(c *net.UnixConn) {
	r := bufio.NewReaderSize(c, 4<<10)
	port, err := readConnect(r)
	if err != nil {
		return
	}
	guest, err := v.dial(c, r, port)
	if err != nil {
		return // no OK: the protocol's word for refused
	}
	defer guest.Close()
	v.mu.Lock()
	v.hostPort = max(v.hostPort+1, firstHostPort)
	n := v.hostPort
	v.mu.Unlock()
	if _, err := fmt.Fprintf(c, "OK %d\n", n); err != nil {
		return
	}
	splice(c, r, guest)
}

// readConnect reads "CONNECT <port>\n" and not a byte more than its line.
func readConnect(r *bufio.Reader) (uint32, error) {
	line := make([]byte, 0, maxConnectLine)
	for {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if line = append(line, b); b == '\n' {
			break
		}
		if len(line) == maxConnectLine {
			return 0, errors.New("vsock request too long")
		}
	}
	word, number, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
	if !ok || !strings.EqualFold(word, "connect") {
		return 0, errors.New("vsock request is no CONNECT")
	}
	port, err := strconv.ParseUint(number, 10, 32)
	return uint32(port), err
}

// dial connects to the guest and gives up when c's other end does. The guest
// may take long to boot, and this is the only sign that nobody waits any more.
func (v *vsock) dial(c *net.UnixConn, r *bufio.Reader, port uint32) (net.Conn, error) {
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if _, err := r.Peek(r.Buffered() + 1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, bufio.ErrBufferFull) {
			cancel()
		}
	}()
	guest, err := v.mux.Dial(ctx, port)
	c.SetReadDeadline(time.Unix(1, 0)) // wakes the goroutine
	<-watched
	c.SetReadDeadline(time.Time{})
	return guest, err
}

// fromGuest connects a connection of the guest to the socket at which the host
// listens for that port.
func (v *vsock) fromGuest(port uint32) (func(net.Conn), error) {
	c, err := (&net.Dialer{}).DialContext(v.ctx, "unix", v.path+"_"+strconv.FormatUint(uint64(port), 10))
	if err != nil {
		return nil, err
	}
	if !v.track(c) {
		c.Close()
		return nil, net.ErrClosed
	}
	return func(guest net.Conn) {
		defer v.untrack(c)
		defer guest.Close()
		splice(c.(*net.UnixConn), c, guest)
	}, nil
}

// splice copies both ways until one end closes, as Firecracker does: there is
// no half-close. What was written before the close still arrives.
func splice(host *net.UnixConn, fromHost io.Reader, guest net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.CopyBuffer(onlyWriter{guest}, onlyReader{fromHost}, make([]byte, 64<<10))
		guest.Close() // ends the other copy
		// What the host still sends has no receiver. Left unread, it would
		// turn the end of the stream into a reset for the host.
		io.Copy(io.Discard, fromHost)
	}()
	io.CopyBuffer(onlyWriter{host}, onlyReader{guest}, make([]byte, 64<<10))
	guest.Close()
	host.CloseWrite()
	host.CloseRead()
	<-done
}

// onlyReader and onlyWriter hide ReadFrom and WriteTo, which would bypass the
// buffer that CopyBuffer is given.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

// close ends everything and returns when it has ended; the socket file is gone.
func (v *vsock) close() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.cancel()
	v.listener.Close()
	v.mux.Close()
	v.mu.Lock()
	for c := range v.conns {
		c.Close()
	}
	v.mu.Unlock()
	v.wg.Wait()
}
