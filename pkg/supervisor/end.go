package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
)

// exitUnknown is the code of a container whose VM ended without a word: what
// a shell says of a process that SIGKILL ended.
const exitUnknown = 128 + int(unix.SIGKILL)

// runToEnd copies output until the container's process has ended, and flushes
// the guest.
func (s *supervisor) runToEnd() Final {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.pump()
	}()
	widen := s.narrow()
	exit, err := s.awaitExit()
	widen()
	failpoint.HereOr(failpoint.SupervisorExited, s.machine.PID)
	close(s.ended)
	s.health.hold(errEnded)
	s.hub.hurry()
	if err != nil {
		s.turnedOut = closed(s.machine.Done())
		s.machine.Kill() // the streams end with it
		s.awaitStreams(drained)
		return Final{ExitCode: exitUnknown, Error: err.Error()}
	}
	s.awaitDrained(drained)
	f := Final{ExitCode: exit.Code, OOMKilled: exit.OOMKilled}
	s.turnedOut = s.flush()
	if s.turnedOut && exit.Signal == int(unix.SIGKILL) { // nobody else has killed it
		f.Error = s.machine.Exit().Reason
	}
	failpoint.Here(failpoint.SupervisorFlushed)
	return f
}

// pump takes output from the guest until both streams have ended.
func (s *supervisor) pump() {
	for {
		kind, b, err := s.stdio.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.log.Debug("output ended", "err", err)
			}
			return
		}
		if len(b) > 0 {
			s.hub.output(kind, b)
		}
	}
}

// awaitExit waits for the exit of the container's process, or for the end of
// the VM without one.
func (s *supervisor) awaitExit() (api.Exit, error) {
	for {
		select {
		case e, ok := <-s.agent.Exits():
			if ok && e.ID != s.plan.Start.ID {
				s.execEnded(e)
				continue
			}
			if ok {
				return e, nil
			}
			return api.Exit{}, s.lost()
		case <-s.machine.Done():
			// Its last message may still be on the way.
			if e, ok := s.lastExit(); ok {
				return e, nil
			}
			return api.Exit{}, s.vmEnded()
		case <-s.ctx.Done():
			return api.Exit{}, context.Cause(s.ctx)
		}
	}
}

// lastExit takes what the agent's connection still holds once the VM is gone.
func (s *supervisor) lastExit() (api.Exit, bool) {
	for e := range s.agent.Exits() {
		if e.ID == s.plan.Start.ID {
			return e, true
		}
	}
	return api.Exit{}, false
}

// lost explains an agent that hung up: the guest is ending, or it is broken.
func (s *supervisor) lost() error {
	select {
	case <-s.machine.Done():
		return s.vmEnded()
	case <-time.After(s.plan.Limits.Kill):
		return errors.New("the guest agent is gone")
	}
}

// awaitDrained waits for the rest of the output. The guest sent its end before
// the exit; only a client that does not read can hold it up, and hub bounds that.
func (s *supervisor) awaitDrained(drained <-chan struct{}) {
	select {
	case <-drained:
	case <-s.machine.Done():
		s.awaitStreams(drained)
	case <-s.ctx.Done():
	}
}

// awaitStreams waits for the end of streams whose VM has ended. Of a VM that is
// another container's the connection alone may have: then nobody but us ends them.
func (s *supervisor) awaitStreams(drained <-chan struct{}) {
	if s.plan.VMOf != nil {
		defer time.AfterFunc(s.plan.Limits.Kill, func() { s.stdio.Close() }).Stop()
	}
	<-drained
}

// flush lets the guest write its disk back, unless the disk goes anyway. Of another
// container's VM it reports whether that has ended.
func (s *supervisor) flush() (vmEnded bool) {
	if s.plan.VMOf != nil {
		return s.moveOut()
	}
	if s.autoRemove() {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.plan.Limits.Shutdown)
	defer cancel()
	if err := s.agent.Shutdown(ctx); err != nil {
		s.log.Debug("shut the guest down", "err", err)
	}
	select {
	case <-s.machine.Done():
	case <-ctx.Done():
		s.log.Error("the guest did not shut down in time: its last writes may be lost")
	}
	return false
}

// signal sends a signal to the container's process. SIGKILL always succeeds:
// a guest that does not obey loses its VM.
func (s *supervisor) signal(sig int) error {
	if sig < 1 || sig > 64 {
		return fmt.Errorf("invalid signal %d", sig)
	}
	resting := s.resting()
	starting := !resting && !closed(s.running)
	if starting && sig != int(unix.SIGKILL) && (s.before == nil || !s.asksForEnd(sig)) {
		return errors.New("the container is still starting")
	}
	if s.asksForEnd(sig) { // before it is sent: the end may come at once
		s.asked.set()
	}
	switch {
	case resting:
		return nil // it is not started again: that is what was asked for
	case starting:
		s.kill(errKilled)
		return nil
	}
	if sig != int(unix.SIGKILL) {
		err := s.sendSignal(sig)
		if sig == s.plan.StopSignal {
			s.wake()
		}
		return err
	}
	go s.ensureEnd(s.plan.Limits.Kill)
	if err := s.sendSignal(sig); err != nil && !hasEnded(err) {
		s.kill(errKilled)
	}
	return nil
}

// hasEnded reports whether the guest knows no such process any more: the news of
// its end is on the way, behind its output.
func hasEnded(err error) bool {
	var ge *api.Error
	return errors.As(err, &ge) && ge.Code == api.CodeNotFound
}

// ensureEnd kills the VM if the container's process has not ended in time.
func (s *supervisor) ensureEnd(limit time.Duration) {
	s.hub.hurry()
	select {
	case <-s.ended:
	case <-time.After(limit):
		s.log.Info("the container did not end after SIGKILL: ending its VM")
		s.kill(errKilled)
	}
}

// stop ends the container as docker does: its signal, its time, then SIGKILL.
func (s *supervisor) stop(cmd Command) {
	sig, timeout := s.plan.StopSignal, s.plan.StopTimeout
	if cmd.Signal != 0 {
		sig = cmd.Signal
	}
	if cmd.Timeout != nil {
		timeout = *cmd.Timeout
	}
	s.asked.set()
	switch {
	case !closed(s.running):
		s.kill(errKilled) // nothing in there to be asked yet
		return
	case closed(s.ended):
		return
	}
	// A process that cannot write its output may not heed the signal, and one
	// that has ended is not reported before all of its output is taken.
	s.hub.hurry()
	if err := s.askToEnd(sig); err != nil {
		s.log.Info("send stop signal", "err", err)
		timeout = 0
	}
	if timeout < 0 {
		return
	}
	select {
	case <-s.ended:
	case <-time.After(timeout):
		s.signal(int(unix.SIGKILL))
	}
}

// askToEnd sends the signal of a stop and ends a pause. For a guest that does not
// answer it waits no longer than for one that does not obey.
func (s *supervisor) askToEnd(sig int) error {
	sent := make(chan error, 1)
	go func() {
		err := s.signal(sig)
		if sig != int(unix.SIGKILL) {
			s.wake()
		}
		sent <- err
	}()
	select {
	case err := <-sent:
		return err
	case <-time.After(s.plan.Limits.Kill):
		s.log.Info("the guest does not answer to the stop signal")
		return nil
	}
}

func (s *supervisor) resize(cmd Command) error {
	select {
	case <-s.running:
	case <-s.ended:
		return nil
	}
	ctx, cancel := s.callCtx()
	defer cancel()
	err := s.agent.Resize(ctx, api.ResizeRequest{ID: s.plan.Start.ID, Cols: cmd.Cols, Rows: cmd.Rows})
	if err == nil {
		s.tell(events.Container(events.ActionResize, s.subject(),
			"height", strconv.Itoa(int(cmd.Rows)), "width", strconv.Itoa(int(cmd.Cols))))
	}
	return err
}

// stdin passes input on once the process is there; nothing is its end.
func (s *supervisor) stdin(b []byte) {
	if !s.plan.Start.Stdin {
		return
	}
	select {
	case <-s.running:
	case <-s.ctx.Done():
		return
	}
	var err error
	if len(b) == 0 {
		err = s.stdio.CloseStdin()
	} else {
		err = s.stdio.WriteStdin(b)
	}
	if err != nil {
		s.log.Debug("pass input on", "err", err)
	}
}
