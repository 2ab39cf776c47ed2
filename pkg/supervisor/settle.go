package supervisor

import (
	"os"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
)

// release frees what live acquired, in every ending.
func (s *supervisor) release() {
	if s.stdio != nil {
		s.stdio.Close()
	}
	if s.plan.VMOf != nil && s.machine != nil {
		s.moveOut()
	}
	if s.agent != nil {
		s.agent.Close()
	}
	s.stopBoot(nil)
	if s.machine != nil {
		if err := s.machine.Kill(); err != nil {
			s.log.Error("end the VM", "err", err)
		}
	}
	if s.joined != nil {
		<-s.joined
	}
	failpoint.Here(failpoint.SupervisorKilled)
	s.leaveNetwork()
	if s.listener != nil {
		s.listener.Close()
	}
	if err := state.RemoveToken(s.paths); err != nil {
		s.log.Error("free what the VM had", "err", err)
	}
	if s.plan.VMOf != nil {
		if err := s.unlinkVM(); err != nil {
			s.log.Error("free what the container had of the VM", "err", err)
		}
	}
	if err := os.RemoveAll(s.paths.VMM()); err != nil {
		s.log.Error("remove files of the VMM", "err", err)
	}
	if s.hub == nil {
		return
	}
	if err := s.hub.log.Close(); err != nil {
		s.log.Error("close log", "err", err)
	}
	close(s.logClosed)
	failpoint.Here(failpoint.SupervisorFreed)
}

func (s *supervisor) autoRemove() bool { return s.plan.AutoRemove && !s.keep.Load() }

// settle writes the last status, or removes the container with --rm, and then
// tells of the end: who hears of it finds it recorded.
func (s *supervisor) settle(f Final) {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	s.recordEnd(state.PhaseExited, f)
	s.status.Supervisor = state.Process{}
	to := s.subject()
	removed := s.autoRemove() && s.remove()
	if !removed {
		if err := state.WriteStatus(s.paths, s.status); err != nil {
			s.log.Error("write final status", "err", err)
		}
	}
	if closed(s.running) {
		s.tellEnd(to, f)
	}
	if removed {
		s.tell(events.Container(events.ActionDestroy, to))
	}
	failpoint.Here(failpoint.SupervisorSettled)
	// Last, so that whoever reads the failure finds everything freed.
	s.report(Outcome{ExitCode: f.ExitCode, Phase: f.phase, Error: f.Error, Timings: s.status.Timings})
}

// remove removes the container, and reports whether it has gone.
func (s *supervisor) remove() bool {
	err := s.store.Remove(s.plan.ID)
	if err != nil {
		s.log.Error("remove container", "err", err)
	}
	return err == nil
}

// recordEnd keeps the end of the container in its status. The caller holds
// statusMu.
func (s *supervisor) recordEnd(p state.Phase, f Final) {
	s.status.Phase, s.status.Paused = p, false
	s.status.ExitCode, s.status.OOMKilled, s.status.Error = f.ExitCode, f.OOMKilled, f.Error
	s.status.VMM, s.status.Networks = state.Process{}, nil
	if !s.recorded {
		s.recorded = true
		s.status.FinishedAt = time.Now()
	}
}
