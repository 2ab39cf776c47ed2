package supervisor

import (
	"errors"
	"strconv"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
)

// exec starts a process in the container that nobody is joined to. Its end is
// heard of in awaitExit.
func (s *supervisor) exec(r *api.ExecRequest) error {
	switch {
	case r == nil || r.Process == nil || !r.Detach:
		return errors.New("not a process on its own")
	case !closed(s.running) || s.resting():
		return errors.New("the container is still starting")
	}
	s.tellExec(events.Exec(events.ActionExecCreate, r.Process.Args), r.ID)
	s.tellExec(events.Exec(events.ActionExecStart, r.Process.Args), r.ID)
	ctx, cancel := s.callCtx()
	defer cancel()
	_, err := s.agent.Exec(ctx, *r)
	return err
}

func (s *supervisor) tellExec(a events.Action, id string, attributes ...string) {
	s.tell(events.Container(a, s.subject(), append(attributes, "execID", id)...))
}

// execEnded tells of the end of a process that exec started.
func (s *supervisor) execEnded(e api.Exit) {
	s.tellExec(events.ActionExecDie, e.ID, "exitCode", strconv.Itoa(e.Code))
}
