package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
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
	life     atomic.Pointer[supervisor] // of the VM that is there now, or was last
	listener *net.UnixListener
	slots    chan struct{}
	stays    chan struct{} // slots of those who stay

	mu sync.Mutex
	// waiting are those who get the Final: of any end, or only of the last one.
	waiting map[*client]end
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
		listener: l,
		slots:    make(chan struct{}, maxClients),
		stays:    make(chan struct{}, maxWaiting),
		waiting:  map[*client]end{},
	}
	srv.life.Store(s)
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

// end is which end of the container somebody waits for.
type end int

const (
	anyEnd end = iota
	lastEnd
)

// final tells everybody who waits how it ended.
func (srv *server) final(f Final) { srv.tell(f, anyEnd, lastEnd) }

func (srv *server) tell(f Final, ends ...end) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var wg sync.WaitGroup
	for c, until := range srv.waiting {
		if !slices.Contains(ends, until) {
			continue
		}
		wg.Go(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.conn.SetWriteDeadline(time.Now().Add(srv.life.Load().plan.Limits.Attached))
			api.WriteMessage(c.conn, api.KindExit, f)
		})
	}
	wg.Wait()
}

// leave is final for an end that is not the last one. Those who are told must
// not wait for the process.
func (srv *server) leave(f Final) {
	srv.tell(f, anyEnd)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for c, until := range srv.waiting {
		if until == anyEnd {
			c.conn.Close()
			delete(srv.waiting, c)
		}
	}
}

// signal sends a signal to the container's process. One that asks for the end
// reaches the process that the restart policy starts meanwhile too.
func (srv *server) signal(sig int) (err error) {
	first := true
	srv.each(func(s *supervisor) {
		if first || s.asksForEnd(sig) {
			err = s.signal(sig)
		}
		first = false
	})
	return err
}

// each calls do with the present VM, and with the one that took its place
// meanwhile.
func (srv *server) each(do func(*supervisor)) {
	for s := srv.life.Load(); ; {
		do(s)
		now := srv.life.Load()
		if now == s {
			return
		}
		s = now
	}
}

func (srv *server) wait(c *client, until end) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.waiting[c] = until
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
		srv.reply(c, srv.signal(cmd.Signal))
	case OpPause, OpUnpause:
		if cmd.Op == OpPause && cmd.Hold {
			srv.hold(c)
			return
		}
		srv.reply(c, srv.life.Load().pause(cmd.Op == OpPause))
	case OpExec:
		srv.reply(c, srv.life.Load().exec(cmd.Exec))
	case OpUpdate:
		var err error
		srv.each(func(s *supervisor) { err = s.update(cmd.Update) })
		srv.reply(c, err)
	case OpNetworks:
		srv.reply(c, srv.life.Load().become(cmd.Networks))
	case OpWatch, OpAttach, OpWait:
		srv.stay(c, cmd)
	case OpStop:
		srv.wait(c, lastEnd)
		go srv.each(func(s *supervisor) {
			if cmd.Keep {
				s.keep.Store(true)
			}
			s.stop(cmd)
		})
		srv.untilGone(c)
	default:
		srv.reply(c, fmt.Errorf("unknown operation %q", cmd.Op))
	}
}

// hold keeps the container paused until its client is gone, or has said all that
// it has to say: it is answered when the container goes on.
func (srv *server) hold(c *client) {
	letGo, err := srv.life.Load().holdPause()
	srv.reply(c, err)
	if err != nil {
		return
	}
	srv.untilGone(c)
	srv.reply(c, letGo())
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
	s := srv.life.Load()
	switch {
	case cmd.Op == OpWatch:
		srv.watch(s, c)
	case cmd.Op == OpAttach && s.resting():
		srv.reply(c, errRestarting)
	case cmd.Op == OpAttach:
		srv.attach(s, c, cmd)
	default:
		srv.wait(c, anyEnd)
		srv.untilGone(c)
	}
}

func (srv *server) reply(c *client, err error) {
	var r Reply
	if err != nil {
		r.Error = err.Error()
	}
	var refused *api.Error
	if errors.As(err, &refused) {
		r.Code = refused.Code
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
func (srv *server) watch(s *supervisor, c *client) {
	w := s.hub.watch()
	defer s.hub.unwatch(w)
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
		case <-s.logClosed:
			return
		}
	}
}

// attach connects a client to the container's streams.
func (srv *server) attach(s *supervisor, c *client, cmd Command) {
	srv.wait(c, anyEnd)
	defer srv.forget(c)
	s.hub.add(c)
	defer s.hub.remove(c)
	detached := s.input(c, cmd)
	if cmd.Input && cmd.Once && !detached {
		s.stdin(nil)
	}
}

// input passes on what an attached client sends until it is gone, and reports
// whether it took its leave.
func (s *supervisor) input(c *client, first Command) (detached bool) {
	buf := make([]byte, api.MaxData)
	for {
		kind, b, err := api.ReadFrame(c.conn, buf)
		if err != nil {
			return false
		}
		switch kind {
		case api.KindStdin:
			if first.Input && (len(b) > 0 || first.Once) {
				s.stdin(b)
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
				if err := s.resize(cmd); err != nil {
					s.log.Debug("resize for an attached client", "err", err)
				}
			}
		}
	}
}

// callCtx bounds one call of the agent.
func (s *supervisor) callCtx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.plan.Limits.Call)
}
