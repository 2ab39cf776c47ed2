package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// attachGrace is how long the output of a process that has ended waits for a
// stdio connection that has never come.
const attachGrace = 30 * time.Second

// maxLeft bounds, in bytes, what is read of a stream after the end of the
// process that it is about, if others still hold it: as much as the kernel
// keeps in a pipe for a user without privilege.
const maxLeft = 1 << 20

// stdio joins a process's streams and the stdio connection of the host. Either
// may come first. Output waits in the kernel's pipe (bounded, and the process
// blocks) until the first connection; once a connection has gone, output is
// discarded until the next, as for a container that nobody watches.
type stdio struct {
	first     chan struct{} // closed by the first connection, or by giving up
	firstOnce sync.Once
	running   chan struct{} // closed when stdin is known
	runOnce   sync.Once

	mu    sync.Mutex
	conn  net.Conn // nil: nobody listens
	stdin *os.File // nil: none, or closed
	tty   bool

	wmu sync.Mutex // one frame at a time
}

func newStdio() *stdio {
	return &stdio{first: make(chan struct{}), running: make(chan struct{})}
}

// slot returns the stdio of a process that runs, or will.
func (a *agent) slot(id string) *stdio {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.slotLocked(id)
}

func (a *agent) slotLocked(id string) *stdio {
	s, ok := a.slots[id]
	if !ok {
		s = newStdio()
		a.slots[id] = s
	}
	return s
}

// serveStdio serves one stdio connection until it ends.
func (a *agent) serveStdio(conn net.Conn, id string) error {
	if err := api.CheckID(id); err != nil {
		return err
	}
	s := a.slot(id)
	if !s.attach(conn) {
		return fmt.Errorf("the streams of %s are connected already", id)
	}
	s.readStdin(conn)
	s.detach(conn)
	a.mu.Lock()
	if a.procs[id] == nil && a.slots[id] == s {
		delete(a.slots, id) // the process never came
	}
	a.mu.Unlock()
	return nil
}

func (s *stdio) attach(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return false
	}
	s.conn = conn
	s.firstOnce.Do(func() { close(s.first) })
	return true
}

func (s *stdio) detach(conn net.Conn) {
	s.mu.Lock()
	if s.conn == conn {
		s.conn = nil
	}
	s.mu.Unlock()
	conn.Close()
}

// readStdin hands stdin frames to the process until the connection ends or
// breaks the protocol. A process that does not read holds up the connection.
func (s *stdio) readStdin(conn net.Conn) {
	buf := make([]byte, api.MaxData)
	for {
		k, b, err := api.ReadFrame(conn, buf)
		if err != nil || k != api.KindStdin {
			return
		}
		<-s.running // or the process never comes: the host's to end by closing
		s.writeStdin(b)
	}
}

func (s *stdio) writeStdin(b []byte) {
	s.mu.Lock()
	f, tty := s.stdin, s.tty
	s.mu.Unlock()
	if f == nil {
		return
	}
	if len(b) == 0 {
		if !tty { // a terminal has no end of file but what is typed
			s.closeStdin()
		}
		return
	}
	if _, err := f.Write(b); err != nil && !tty {
		s.closeStdin() // the reader is gone
	}
}

// run tells where stdin goes, nil for nowhere.
func (s *stdio) run(stdin *os.File, tty bool) {
	s.mu.Lock()
	s.stdin, s.tty = stdin, tty
	s.mu.Unlock()
	s.runOnce.Do(func() { close(s.running) })
}

// abort ends the streams of a process that could not be started.
func (s *stdio) abort() {
	s.run(nil, false)
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		s.detach(conn)
	}
}

func (s *stdio) closeStdin() {
	s.mu.Lock()
	f := s.stdin
	s.stdin = nil
	s.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// pump copies a stream of the process to the host until its end.
func (s *stdio) pump(k api.Kind, f *os.File) {
	defer f.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			<-s.first
			s.write(k, buf[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) { // see process.cut
			s.drain(k, f, buf)
		}
		if err != nil { // io.EOF of a pipe, EIO of a terminal
			return
		}
	}
}

// drain copies what a stream holds now.
func (s *stdio) drain(k api.Kind, f *os.File, buf []byte) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	for total := 0; total < maxLeft; {
		var n int
		cerr := rc.Control(func(fd uintptr) { n, err = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), buf) }) })
		if cerr != nil || err != nil || n <= 0 { // EAGAIN: that was all
			return
		}
		<-s.first
		s.write(k, buf[:n])
		total += n
	}
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

// discard says that nobody is to come for the output.
func (s *stdio) discard() { s.firstOnce.Do(func() { close(s.first) }) }

// write sends a frame to whoever is connected. A connection that fails is dropped.
func (s *stdio) write(k api.Kind, b []byte) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return
	}
	if err := api.WriteFrame(conn, k, b); err != nil {
		s.detach(conn)
	}
}

// giveUp bounds the wait for the first connection. Call the result to stop it.
func (s *stdio) giveUp() (stop func() bool) {
	return time.AfterFunc(attachGrace, s.discard).Stop
}

// finish announces the end of both streams. The host closes the connection.
func (s *stdio) finish() {
	<-s.first
	s.write(api.KindStdout, nil)
	s.write(api.KindStderr, nil)
}
