package supervisor

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// Docker's rests before a container is started again. They double from one to the
// next; a container that ran for a while begins anew.
const (
	firstRest   = 100 * time.Millisecond
	longestRest = time.Minute
	ranLong     = 10 * time.Second
)

// ending is what a restart policy asks about the end of a container.
type ending struct {
	policy   state.RestartPolicy
	exitCode int
	asked    bool          // for the end, by a user
	count    int           // how often the policy has started it again
	ran      time.Duration // since its last start
	rest     time.Duration // before that start
}

// again decides whether a container is started again, and after how long a rest.
func (e ending) again() (rest time.Duration, yes bool) {
	if e.asked {
		return 0, false
	}
	switch e.policy.Name {
	case state.RestartAlways, state.RestartUnlessStopped:
		yes = true
	case state.RestartOnFailure:
		most := e.policy.MaximumRetryCount
		yes = e.exitCode != 0 && (most == 0 || e.count < most)
	}
	if !yes {
		return 0, false
	}
	if e.rest == 0 || e.ran >= ranLong {
		return firstRest, true
	}
	return min(2*e.rest, longestRest), true
}

// asked remembers that a user wants the container to end: its restart policy
// does not count any more, until the user starts it.
type asked struct {
	once sync.Once
	done chan struct{}
}

func newAsked() *asked { return &asked{done: make(chan struct{})} }

func (a *asked) set() { a.once.Do(func() { close(a.done) }) }

func (a *asked) is() bool { return closed(a.done) }

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// asksForEnd reports whether a user who sends sig does not want the container to
// be started again. As in docker any signal says so, unless the container has a
// stop signal of its own.
func (s *supervisor) asksForEnd(sig int) bool {
	return sig == int(syscall.SIGKILL) || sig == s.plan.StopSignal || s.plan.StopSignal == int(syscall.SIGTERM)
}

// resting reports whether the VM has ended, and its follower has not begun.
func (s *supervisor) resting() bool {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	return s.status.Phase == state.PhaseRestarting && closed(s.logClosed)
}

// restart does what the restart policy says about the end of the container: it
// waits for the time of the next start and answers with what does it, or nil.
func (s *supervisor) restart(f Final) (*supervisor, error) {
	if !closed(s.running) {
		return nil, nil
	}
	s.statusMu.Lock()
	e := ending{
		policy: s.plan.Restart, exitCode: f.ExitCode, asked: s.asked.is(), count: s.status.RestartCount,
		ran: time.Since(s.status.StartedAt), rest: s.rest,
	}
	s.recordEnd(state.PhaseExited, f)
	rest, again := e.again()
	if !again {
		s.statusMu.Unlock()
		return nil, nil
	}
	s.status.RestartCount++
	s.status.Phase = state.PhaseRestarting
	if err := state.WriteStatus(s.paths, s.status); err != nil {
		s.log.Error("write status", "err", err)
	}
	s.statusMu.Unlock()
	s.tellEnd(s.subject(), f)
	s.server.leave(f)
	s.log.Info("the restart policy starts the container again", "exit code", f.ExitCode, "after", rest)
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.asked.done:
		return nil, nil
	}
	return s.next(rest)
}

// next makes what starts the container again.
func (s *supervisor) next(rest time.Duration) (*supervisor, error) {
	n := s.successor(rest)
	boundLog(os.Stderr)
	if err := n.begin(); err != nil {
		return nil, err
	}
	s.handOver(n)
	// Whoever asks for the end from here on speaks with n.
	if s.asked.is() {
		n.kill(errKilled)
	}
	return n, nil
}

func (s *supervisor) successor(rest time.Duration) *supervisor {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	before := s.status
	n := &supervisor{
		plan: s.plan, paths: s.paths, store: s.store, driver: s.driver, lock: s.lock, log: s.log, journal: s.journal,
		asked: s.asked, before: &before, recorded: true, rest: rest, dir: s.dir, control: s.control, server: s.server,
	}
	n.plan.Timings = nil
	if s.turnedOut {
		n.goneToken = s.plan.Setup.Token
	}
	// What belongs to one VM must be of no use to another.
	n.plan.Setup.Token, n.plan.Setup.Entropy = Secrets()
	return n
}

// handOver makes n answer on the control socket. It takes what an update has
// changed since n was made: a later one finds n.
func (s *supervisor) handOver(n *supervisor) {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	n.plan.Restart, n.plan.Start = s.plan.Restart, s.plan.Start
	n.plan.NICs, n.plan.VM.NICs, n.plan.Setup.NICs = s.plan.NICs, s.plan.VM.NICs, s.plan.Setup.NICs
	s.handed = true
	s.server.life.Store(n)
}

// againFailed ends a container that could not be started again. How it ended
// before stays true.
func (s *supervisor) againFailed(err error) Final {
	f := Final{ExitCode: s.before.ExitCode, OOMKilled: s.before.OOMKilled}
	if !errors.Is(err, errKilled) {
		f.Error = againError(err)
	}
	return f
}

func againError(err error) string { return "start again: " + err.Error() }

// maxLog bounds the supervisor's own log, in bytes: a policy may start a
// container without end.
const maxLog = 1 << 20

// boundLog empties a log that has become too long.
func boundLog(f *os.File) {
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() < maxLog {
		return
	}
	if f.Truncate(0) == nil {
		f.Seek(0, io.SeekStart)
	}
}
