package supervisor

import (
	"errors"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
)

// errPaused and errNotPaused answer a pause that is one already, and its end.
var (
	errPaused    = errors.New("already paused")
	errNotPaused = errors.New("not paused")
	// errRestarting answers what needs a container that runs.
	errRestarting = errors.New("the container is restarting, wait until it is running")
)

// pause stops the container's processes, or lets them go on. The guest does it:
// its VM runs on, so that it answers, and every VMM can.
func (s *supervisor) pause(paused bool) error {
	select {
	case <-s.running:
	default:
		return errors.New("the container is still starting")
	}
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	switch {
	case s.status.Phase == state.PhaseRestarting:
		return errRestarting
	case s.status.Phase != state.PhaseRunning:
		return errors.New("the container has ended")
	case paused && s.status.Paused:
		return errPaused
	case !paused && !s.status.Paused:
		return errNotPaused
	}
	ctx, cancel := s.callCtx()
	defer cancel()
	if err := s.agent.Freeze(ctx, api.FreezeRequest{ID: s.plan.Start.ID, Frozen: paused}); err != nil {
		return err
	}
	s.status.Paused = paused
	action := events.ActionUnpause
	if paused {
		action = events.ActionPause
		s.health.hold(errHeld)
	} else {
		s.health.goOn()
	}
	err := state.WriteStatus(s.paths, s.status)
	s.tell(events.Container(action, s.subject()))
	return err
}

// wake ends a pause, so that a signal which asks for the end is heard. SIGKILL
// needs no wake: the kernel kills what is frozen.
func (s *supervisor) wake() {
	if err := s.pause(false); err != nil && !errors.Is(err, errNotPaused) {
		s.log.Info("end the pause", "err", err)
	}
}
