package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// step is a named phase of a start.
type step struct {
	name string
	run  func() error
}

// boot are the steps to a guest with its file systems in place.
func (s *supervisor) boot() []step {
	if s.plan.VMOf != nil {
		return s.moveIn()
	}
	return []step{
		{phaseNetwork, s.startNetwork}, {"vmm", s.startVMM}, {"boot", s.awaitAgent}, {"join", s.awaitJoin}, {"setup", s.setup},
	}
}

// runSteps returns the name of the step that failed.
func (s *supervisor) runSteps(steps []step) (phase string, err error) {
	for _, step := range steps {
		begun := time.Now()
		if err := step.run(); err != nil {
			// Whatever else was under way was given up for it.
			if n := (*networkError)(nil); errors.As(context.Cause(s.booting), &n) {
				s.log.Info("given up for the network", "phase", step.name, "err", err) // or it failed too
				return phaseNetwork, n.err
			}
			return step.name, err
		}
		s.timing(step.name, time.Since(begun))
	}
	return "", nil
}

func (s *supervisor) timing(name string, d time.Duration) {
	s.status.Timings = append(s.status.Timings, state.Timing{Name: name, Duration: d})
	s.log.Debug("phase done", "phase", name, "duration", d)
}

// adopt serves the client that was attached before the start. Its first frame
// is there already: it was written before we were spawned.
func (s *supervisor) adopt(conn net.Conn) {
	c := &client{conn: conn}
	var cmd Command
	if err := api.ReadMessage(conn, api.KindOpen, &cmd); err != nil || cmd.Op != OpAttach {
		conn.Close()
		return
	}
	s.server.wait(c, anyEnd)
	s.hub.add(c)
	go s.server.attach(s, c, cmd)
}

func (s *supervisor) startVMM() error {
	if err := os.MkdirAll(s.paths.VMM(), 0o700); err != nil {
		return err
	}
	var err error
	if s.listener, err = agent.Listen(s.plan.VM.VsockPath); err != nil {
		return err
	}
	failpoint.Here(failpoint.SupervisorAwaiting)
	ctx, cancel := context.WithTimeout(s.booting, s.plan.Limits.Boot)
	defer cancel()
	if s.machine, err = s.driver.Start(ctx, s.plan.VM); err != nil {
		return err
	}
	failpoint.HereOr(failpoint.SupervisorVMM, s.machine.PID)
	s.status.VMM = state.IdentifyProcess(s.machine.PID())
	t, ok := s.machine.(vmm.Templated)
	s.status.FromTemplate = ok && t.FromTemplate()
	// On disk before anything else: who finds us dead knows what to look for.
	if err := s.record(); err != nil {
		return err
	}
	failpoint.HereOr(failpoint.SupervisorKnown, s.machine.PID)
	close(s.devices)
	return s.attachNetwork()
}

// awaitAgent waits for the guest's hello, the end of the VM, or the limit.
func (s *supervisor) awaitAgent() error {
	ctx, cancel := context.WithTimeout(s.booting, s.plan.Limits.Boot)
	defer cancel()
	go func() {
		select {
		case <-s.machine.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	var err error
	s.agent, err = s.listener.Accept(ctx)
	failpoint.HereOr(failpoint.SupervisorBooted, s.machine.PID)
	if err == nil {
		if t, ok := s.machine.(vmm.Templated); ok {
			t.Heard()
		}
		s.status.Kernel = s.agent.Hello().Kernel
		s.guestPhases(s.agent.Hello().Phases)
		return nil
	}
	return s.bootError(err)
}

func (s *supervisor) setup() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.plan.Limits.Call)
	defer cancel()
	req := s.plan.Setup
	req.Now = time.Now()
	req.NICs = slices.Clone(req.NICs)
	for i := range req.NICs {
		req.NICs[i].TemplateMAC = vmm.TemplateMAC(i)
	}
	reply, err := s.agent.Setup(ctx, req)
	s.guestPhases(reply.Phases)
	if err != nil {
		return s.guestError(err)
	}
	err = state.WriteToken(s.paths, req.Token)
	failpoint.HereOr(failpoint.SupervisorSetUp, s.machine.PID)
	return err
}

// guestPhases logs the guest's own steps. The times are those of its clock,
// since its kernel started.
func (s *supervisor) guestPhases(phases []api.Phase) {
	for _, p := range phases {
		s.log.Debug("guest phase done", "phase", p.Name, "at", p.At)
	}
}

// startProcess connects the container's streams, then starts its process, so
// that no output can be lost.
func (s *supervisor) startProcess() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.plan.Limits.Call)
	defer cancel()
	var err error
	s.stdio, err = agent.OpenStdio(ctx, s.plan.VM.VsockPath, s.plan.Setup.Token, s.plan.Start.ID)
	if err != nil {
		return s.guestError(err)
	}
	reply, err := s.agent.Start(ctx, s.plan.Start)
	failpoint.HereOr(failpoint.SupervisorStarted, s.machine.PID)
	s.guestPhases(reply.Phases)
	return s.guestError(err)
}

// started makes the running container known.
func (s *supervisor) started() error {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	s.status.Phase, s.recorded = state.PhaseRunning, false
	s.status.StartedAt = time.Now()
	s.status.ExitCode, s.status.OOMKilled, s.status.Error = 0, false, ""
	if err := state.WriteStatus(s.paths, s.status); err != nil {
		return err
	}
	s.tell(events.Container(events.ActionStart, s.subject()))
	failpoint.HereOr(failpoint.SupervisorRunning, s.machine.PID)
	s.health = s.startHealth()
	close(s.running)
	s.report(Outcome{OK: true, Timings: s.status.Timings})
	failpoint.HereOr(failpoint.SupervisorUp, s.machine.PID)
	return nil
}
