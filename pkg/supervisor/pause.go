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
	_, err := s.setPaused(paused, 0)
	return err
}

// holdPause pauses the container until letGo is called. A pause that somebody else
// began since, after the end of this one, is not ended by it.
func (s *supervisor) holdPause() (letGo func() error, err error) {
	mine, err := s.setPaused(true, 0)
	return func() error {
		_, err := s.setPaused(false, mine)
		if errors.Is(err, errNotPaused) {
			return nil
		}
		return err
	}, err
}

// setPaused answers with the number of the present pause. Only that one is ended
// which has the number mine, if it is not 0.
func (s *supervisor) setPaused(paused bool, mine int) (number int, err error) {
	select {
	case <-s.running:
	default:
		return 0, errors.New("the container is still starting")
	}
	// Not statusMu: a guest that does not answer must not be in the way of the end.
	s.pauseMu.Lock()
	defer s.pauseMu.Unlock()
	if !paused && mine != 0 && mine != s.pauses {
		return 0, errNotPaused
	}
	if err := s.mayPause(paused); err != nil {
		return 0, err
	}
	ctx, cancel := s.callCtx()
	defer cancel()
	if err := s.agent.Freeze(ctx, api.FreezeRequest{ID: s.plan.Start.ID, Frozen: paused}); err != nil {
		return 0, err
	}
	if err := s.paused(paused); err != nil {
		return 0, err
	}
	if paused {
		s.pauses++
		s.health.hold(errHeld)
	} else {
		s.health.goOn()
	}
	return s.pauses, nil
}

func (s *supervisor) mayPause(paused bool) error {
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
	return nil
}

// paused makes a pause known, or its end, of a container that has not ended
// meanwhile.
func (s *supervisor) paused(paused bool) error {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	if s.status.Phase != state.PhaseRunning {
		return errors.New("the container has ended")
	}
	s.status.Paused = paused
	action := events.ActionUnpause
	if paused {
		action = events.ActionPause
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
