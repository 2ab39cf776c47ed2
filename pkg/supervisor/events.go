package supervisor

import (
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
)

// subject is the container with the name that it has now.
func (s *supervisor) subject() events.Subject {
	to := events.Subject{ID: s.plan.ID}
	if vm, err := s.store.Resolve(s.plan.ID); err == nil {
		to.Name, to.Image = vm.Name, vm.Image
	}
	if c, err := s.store.ReadConfig(s.plan.ID); err == nil {
		to.Labels = c.Labels
	}
	return to
}

// tell writes an event. The container's life does not depend on it.
func (s *supervisor) tell(e events.Event) {
	if err := s.journal.Write(e); err != nil {
		s.log.Error("an event is lost", "action", string(e.Action), "err", err)
	}
}

// sendSignal sends a signal to the container's process and tells of it, before
// anybody can hear of the end that it may bring.
func (s *supervisor) sendSignal(sig int) error {
	s.signalMu.Lock()
	defer s.signalMu.Unlock()
	ctx, cancel := s.callCtx()
	defer cancel()
	err := s.agent.Signal(ctx, api.SignalRequest{ID: s.plan.Start.ID, Signal: sig})
	if err == nil || sig == int(unix.SIGKILL) && !hasEnded(err) { // which the VM's end brings
		s.tell(events.Kill(s.subject(), sig))
	}
	return err
}

// tellEnd tells of the end of a container that had started, once.
func (s *supervisor) tellEnd(to events.Subject, f Final) {
	s.signalMu.Lock()
	defer s.signalMu.Unlock()
	if s.told {
		return
	}
	s.told = true
	if f.OOMKilled {
		s.tell(events.Container(events.ActionOOM, to))
	}
	s.tell(events.Die(to, f.ExitCode, s.status.FinishedAt.Sub(s.status.StartedAt)))
}
