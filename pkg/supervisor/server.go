package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

// maxClients bounds the connections of the control socket. They come from
// commands of the same user; a loop of them must not exhaust descriptors.
const maxClients = 256

// maxWaiting of them may stay until the end: the rest is for stop and kill.
const maxWaiting = maxClients - 32

// server answers on the control socket.
type server struct {
	s        *supervisor
	listener *net.UnixListener
	slots    chan struct{}
	stays    chan struct{} // slots of those who stay

	mu      sync.Mutex
	waiting map[*client]struct{} // those who get the Final
}

func (s *supervisor) serve() (*server, error) {
	path := s.control
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect control socket: %w", err)
	}
	srv := &server{
		s: s, listener: l,
		slots:   make(chan struct{}, maxClients),
		stays:   make(chan struct{}, maxWaiting),
		waiting: map[*client]struct{}{},
	}
	go srv.accept()
	return srv, nil
}

func (srv *server) accept() {
	for {
		conn, err := srv.listener.Accept()
		if err != nil {
			return // closed
		}
		select {
		case srv.slots <- struct{}{}:
			go func() {
				defer func() { <-srv.slots }()
				srv.handle(conn)
			}()
		default:
			conn.Close()
		}
	}
}

// close stops listening and removes the socket. Connections stay: they end
// with the process, so that their end also says that the lock is free.
func (srv *server) close() { srv.listener.Close() }

// final tells everybody who waits how it ended.
func (srv *server) final(f Final) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var wg sync.WaitGroup
	for c := range srv.waiting {
		wg.Go(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.conn.SetWriteDeadline(time.Now().Add(srv.s.plan.Limits.Attached))
			api.WriteMessage(c.conn, api.KindExit, f)
		})
	}
	wg.Wait()
}

func (srv *server) wait(c *client) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.waiting[c] = struct{}{}
}

func (srv *server) forget(c *client) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.waiting, c)
}

// handle serves one connection until its client is gone.
func (srv *server) handle(conn net.Conn) {
	c := &client{conn: conn}
	defer conn.Close()
	var cmd Command
	if err := api.ReadMessage(conn, api.KindOpen, &cmd); err != nil {
		return
	}
	switch cmd.Op {
	case OpSignal:
		srv.reply(c, srv.s.signal(cmd.Signal))
	case OpPause, OpUnpause:
		err := srv.s.pause(cmd.Op == OpPause)
		srv.reply(c, err)
		if err == nil && cmd.Op == OpPause && cmd.Hold {
			srv.untilGone(c)
			srv.s.wake()
		}
	case OpWatch, OpAttach, OpWait:
		srv.stay(c, cmd)
	case OpStop:
		if cmd.Keep {
			srv.s.keep.Store(true)
		}
		srv.wait(c)
		go srv.s.stop(cmd)
		srv.untilGone(c)
	default:
		srv.reply(c, fmt.Errorf("unknown operation %q", cmd.Op))
	}
}

// stay serves a client that stays until the end.
func (srv *server) stay(c *client, cmd Command) {
	select {
	case srv.stays <- struct{}{}:
		defer func() { <-srv.stays }()
	default:
		srv.reply(c, errors.New("too many commands wait for this container"))
		return
	}
	switch cmd.Op {
	case OpWatch:
		srv.watch(c)
	case OpAttach:
		srv.attach(c, cmd)
	default:
		srv.wait(c)
		srv.untilGone(c)
	}
}

func (srv *server) reply(c *client, err error) {
	var r Reply
	if err != nil {
		r.Error = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	api.WriteMessage(c.conn, api.KindReply, r)
}

// untilGone returns when the client has closed its end.
func (srv *server) untilGone(c *client) {
	defer srv.forget(c)
	for {
		if _, _, err := api.ReadFrame(c.conn, nil); err != nil {
			return
		}
	}
}

// watch tells a client of the log's growth, and of the end by closing.
func (srv *server) watch(c *client) {
	w := srv.s.hub.watch()
	defer srv.s.hub.unwatch(w)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		srv.untilGone(c)
	}()
	for {
		c.mu.Lock()
		err := api.WriteFrame(c.conn, api.KindStdout, nil)
		c.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-w:
		case <-gone:
			return
		case <-srv.s.logClosed:
			return
		}
	}
}

// attach connects a client to the container's streams.
func (srv *server) attach(c *client, cmd Command) {
	srv.wait(c)
	defer srv.forget(c)
	srv.s.hub.add(c)
	defer srv.s.hub.remove(c)
	detached := srv.input(c, cmd)
	if cmd.Input && cmd.Once && !detached {
		srv.s.stdin(nil)
	}
}

// input passes on what an attached client sends until it is gone, and reports
// whether it took its leave.
func (srv *server) input(c *client, first Command) (detached bool) {
	buf := make([]byte, api.MaxData)
	for {
		kind, b, err := api.ReadFrame(c.conn, buf)
		if err != nil {
			return false
		}
		switch kind {
		case api.KindStdin:
			if first.Input && (len(b) > 0 || first.Once) {
				srv.s.stdin(b)
			}
		case api.KindRequest:
			var cmd Command
			if err := api.Decode(b, &cmd); err != nil {
				return false
			}
			switch cmd.Op {
			case OpDetach:
				return true
			case OpResize:
				if err := srv.s.resize(cmd); err != nil {
					srv.s.log.Debug("resize for an attached client", "err", err)
				}
			}
		}
	}
}

// callCtx bounds one call of the agent.
func (s *supervisor) callCtx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.plan.Limits.Call)
}
