package supervisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/health"
	"github.com/micropod/micropod/pkg/state"
)

// HealthPlan is a container's health check.
type HealthPlan struct {
	Check state.Healthcheck `json:"check"`
	// Exec is the check's process, but for its id: each has one of its own.
	Exec api.ExecRequest `json:"exec"`
}

// monitor checks a container's health while it runs and is not paused. A check is
// a process like one of exec, on connections of its own: a guest that stalls or
// floods one costs nobody else anything.
type monitor struct {
	s       *supervisor
	plan    HealthPlan
	started time.Time
	health  state.Health

	mu   sync.Mutex
	stop func(cause error) // nil: it does not run
	over bool              // it will not run any more
}

// errEnded and errHeld are why a monitor stops.
var (
	errEnded = errors.New("the container has ended")
	errHeld  = errors.New("the container is paused")
)

// startHealth begins to check a container that has started; nil if it has no
// check.
func (s *supervisor) startHealth() *monitor {
	if s.plan.Health == nil {
		return nil
	}
	before, err := s.store.ReadHealth(s.plan.ID)
	if err != nil {
		s.log.Error("earlier health", "err", err)
	}
	m := &monitor{s: s, plan: *s.plan.Health, started: s.status.StartedAt, health: health.Begin(before)}
	m.write()
	m.goOn()
	return m
}

// goOn lets the monitor run. Without one it does nothing.
func (m *monitor) goOn() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stop != nil || m.over {
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.run(ctx)
	}()
	m.stop = func(cause error) {
		cancel(cause)
		<-done
	}
}

// hold stops the monitor, until goOn if the cause is errHeld, and returns when
// no check runs any more. Without a monitor it does nothing.
func (m *monitor) hold(cause error) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = m.over || errors.Is(cause, errEnded)
	if m.stop == nil {
		return
	}
	m.stop(cause)
	m.stop = nil
	m.health = health.End(m.health)
	m.write()
}

func (m *monitor) run(ctx context.Context) {
	for {
		due := time.NewTimer(health.Delay(m.plan.Check, m.health, time.Since(m.started)))
		select {
		case <-ctx.Done():
			due.Stop()
			return
		case <-due.C:
		}
		begun := time.Now()
		r := m.check(ctx)
		if ctx.Err() != nil {
			return
		}
		r.Start, r.End = begun, time.Now()
		before := m.health.Status
		m.health = health.Next(m.plan.Check, m.health, r, m.started)
		m.write()
		if now := m.health.Status; now != before {
			m.s.tell(events.Container(events.ActionHealthStatus+": "+events.Action(now), m.s.subject()))
		}
	}
}

// write makes the health known. Nothing depends on it: a full disk shows the
// health of an earlier time.
func (m *monitor) write() {
	if err := state.WriteHealth(m.s.paths, m.health); err != nil {
		m.s.log.Error("health", "err", err)
	}
}

// check runs one check and returns its result.
func (m *monitor) check(ctx context.Context) state.HealthResult {
	r, err := m.exec(ctx)
	if err != nil {
		m.s.log.Debug("health check", "err", err)
		r = state.HealthResult{ExitCode: -1, Output: api.Clean(err.Error(), api.MaxError)}
	}
	return r
}

// probe is a check that runs.
type probe struct {
	m      *monitor
	client *agent.Client
	stdio  *agent.Stdio
	id     string

	done   chan struct{} // closed when there is no more to come
	output health.Output
	exit   *api.Exit // nil: it was not reported
}

// exec starts a check and waits for its end. Its start has a time of its own, so
// that a slow one is not the check's fault.
func (m *monitor) exec(ctx context.Context) (state.HealthResult, error) {
	start, cancel := context.WithTimeout(ctx, m.s.plan.Limits.Call)
	defer cancel()
	p := &probe{m: m, id: state.NewID(), done: make(chan struct{})}
	vsock, token := m.s.plan.VM.VsockPath, m.s.plan.Setup.Token
	var err error
	if p.client, err = agent.Dial(start, vsock, token); err != nil {
		return state.HealthResult{}, err
	}
	defer p.client.Close()
	if p.stdio, err = agent.OpenStdio(start, vsock, token, p.id); err != nil {
		return state.HealthResult{}, err
	}
	defer p.stdio.Close()
	req := m.plan.Exec
	req.ID = p.id
	m.s.tellExec(events.Exec(events.ActionExecCreate, req.Process.Args), p.id)
	if _, err := p.client.Exec(start, req); err != nil {
		return state.HealthResult{}, err
	}
	m.s.tellExec(events.Exec(events.ActionExecStart, req.Process.Args), p.id)
	go p.follow()
	return p.wait(ctx)
}

// follow takes the output until its end, and then the exit code.
func (p *probe) follow() {
	defer close(p.done)
	for {
		_, b, err := p.stdio.ReadFrame()
		if err != nil {
			break
		}
		p.output.Add(b)
	}
	if e, ok := <-p.client.Exits(); ok {
		p.exit = &e
		p.m.s.execEnded(e)
	}
}

// wait returns the result of a check: its exit code, or that it took too long.
func (p *probe) wait(ctx context.Context) (state.HealthResult, error) {
	late := time.NewTimer(health.Timeout(p.m.plan.Check))
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		p.kill()
		return health.TimedOut(p.m.plan.Check, &p.output), nil
	case <-ctx.Done():
		if !errors.Is(context.Cause(ctx), errEnded) {
			p.kill()
		}
		p.abandon()
		return state.HealthResult{}, context.Cause(ctx)
	}
	if p.exit == nil {
		return state.HealthResult{}, errors.New("the end of the health check was not reported")
	}
	return state.HealthResult{ExitCode: p.exit.Code, Output: p.output.String()}, nil
}

// kill ends a check that runs, and gives up on a guest that does not do it.
func (p *probe) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), p.m.s.plan.Limits.Kill)
	defer cancel()
	defer p.abandon()
	if err := p.client.Signal(ctx, api.SignalRequest{ID: p.id, Signal: int(unix.SIGKILL)}); err != nil {
		p.m.s.log.Info("end a health check", "err", err)
		return
	}
	select {
	case <-p.done:
	case <-ctx.Done():
	}
}

// abandon returns when nothing more of the check is taken.
func (p *probe) abandon() {
	p.stdio.Close()
	p.client.Close()
	<-p.done
}
