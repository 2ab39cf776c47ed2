package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
)

// A container that does not run keeps its files on disks that only a guest can
// read. So a VM is booted with these very disks, in which the agent puts the root
// file system together and starts nothing: the client speaks with it, and the VM
// ends when the client hangs up. No process of the container ever runs.
//
// The container's lock is held meanwhile, so that a start waits; its status is
// not touched, and nothing answers on its control socket: it does not run.

// serveFiles is the life of such a VM. The client is told how it ended, once
// what was written is on the disk and everything is free.
func (s *supervisor) serveFiles(client net.Conn) {
	if client == nil {
		s.report(Outcome{ExitCode: 125, Phase: "supervisor", Error: "nobody is there to be served"})
		return
	}
	defer client.Close() // says that the lock is free: it ends with this process
	phase, err := s.liveForFiles(client)
	failpoint.Here(failpoint.ServiceFreed)
	err = errors.Join(err, state.RemoveService(s.paths))
	if err != nil {
		s.log.Error("serve files", "phase", phase, "err", err)
		s.report(Outcome{ExitCode: 125, Phase: phase, Error: err.Error()})
	}
	var r Reply
	if err != nil {
		r.Error = err.Error()
	}
	client.SetWriteDeadline(time.Now().Add(s.plan.Limits.Attached))
	if err := api.WriteMessage(client, api.KindReply, r); err != nil {
		s.log.Debug("tell the client", "err", err)
	}
}

func (s *supervisor) liveForFiles(client net.Conn) (phase string, err error) {
	if err := s.record(); err != nil {
		return "state", err
	}
	failpoint.Here(failpoint.ServiceRecorded)
	defer s.release()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, client) // it has nothing to say but its end
	}()
	up, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-gone:
			if up.Err() == nil { // nothing is lost before the first word
				s.kill(errKilled)
			}
		case <-up.Done():
		}
	}()
	if phase, err = s.runSteps(s.boot()); err != nil {
		return phase, err
	}
	cancel()
	s.report(Outcome{OK: true, Timings: s.status.Timings})
	failpoint.Here(failpoint.ServiceUp)
	select {
	case <-gone:
		if closed(s.machine.Done()) { // before: nothing was flushed
			return "serve", s.vmEnded()
		}
		return "flush", s.flushFiles()
	case <-s.machine.Done():
		return "serve", s.vmEnded()
	case <-s.ctx.Done():
		return "serve", context.Cause(s.ctx)
	}
}

// flushFiles has the guest write its disk back, and tells if it did not.
func (s *supervisor) flushFiles() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.plan.Limits.Shutdown)
	defer cancel()
	if err := s.agent.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut the guest down: %w", err)
	}
	select {
	case <-s.machine.Done():
		failpoint.Here(failpoint.ServiceFlushed)
		return nil
	case <-ctx.Done():
		return errors.New("the guest did not shut down in time: its last writes may be lost")
	}
}

// Service is the client's end of a VM that serves files.
type Service struct{ conn *net.UnixConn }

// NewService takes the client's end of the connection that Spawn hands down.
func NewService(conn *net.UnixConn) Service { return Service{conn} }

// Close ends the VM. It returns when everything is free, or when ctx ends, after
// which the VM ends all the same.
func (c Service) Close(ctx context.Context) error {
	defer c.conn.Close()
	defer context.AfterFunc(ctx, func() { c.conn.Close() })()
	if err := c.conn.CloseWrite(); err != nil {
		return err
	}
	var r Reply
	err := api.ReadMessage(c.conn, api.KindReply, &r)
	if err == nil {
		_, err = io.Copy(io.Discard, c.conn)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return ErrGone
	case err != nil:
		return err
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}
