package guest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent/api"
)

const (
	maxExecs = 128 // processes of Exec at one time, those that are starting too
	// execTimeout bounds the start of one: the container can hold it up, by
	// stopping the process or by a file system that never answers.
	execTimeout = time.Minute
)

// exec starts one more process in a container; after is as start's.
func (a *agent) exec(c *control, r api.ExecRequest) (any, func(), error) {
	if err := checkExec(r); err != nil {
		return nil, nil, err
	}
	p := newProcess(r.ID, c)
	if err := a.reserveExec(p, r.Container); err != nil {
		return nil, nil, err
	}
	if r.Detach {
		p.io.discard()
	}
	reply, after, err := a.begin(p, func() (phases, error) { return a.join(p, r) })
	if err != nil {
		p.within.execs.Done()
	}
	return reply, after, err
}

// reserveExec takes the id, the streams, and a share in the container's life.
func (a *agent) reserveExec(p *process, container string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	execs := 0
	for _, other := range a.procs {
		if other.within != nil {
			execs++
		}
	}
	target := a.procs[container]
	switch {
	case target == nil || !target.live || target.within != nil || target.life.Err() != nil:
		return notRunning(container)
	case target.cgroup.frozen():
		return &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("container %s is paused", container)}
	case a.procs[p.id] != nil:
		return invalid("exec", "process %s runs already", p.id)
	case execs >= maxExecs:
		return invalid("exec", "%d processes are in the container by exec: no more are possible", execs)
	}
	p.within = target
	target.execs.Add(1)
	a.procs[p.id] = p
	p.io = a.slotLocked(p.id)
	return nil
}

func notRunning(container string) error {
	return &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("container %s is not running", container)}
}

// joinRequest is an Exec in the words that stage and launcher know. The filter
// is the container's, as docker has it: also for a privileged process.
func joinRequest(r api.ExecRequest, filter *api.Seccomp) api.StartRequest {
	process := *r.Process
	if r.Privileged {
		var all []string
		for name := range strings.FieldsSeq(capNames) {
			all = append(all, "CAP_"+name)
		}
		process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	}
	return api.StartRequest{
		ID: r.ID, Spec: &api.Spec{Process: &process, Linux: &api.SpecLinux{}},
		User: r.User, GroupAdd: r.GroupAdd, Stdin: r.Stdin, Seccomp: filter,
	}
}

// joinStage is a stage of an exec that runs.
type joinStage struct {
	*launcher
	pid    int
	exited <-chan syscall.WaitStatus
}

// startJoin starts the stage of an exec, in the container's cgroup.
func (a *agent) startJoin(within *process, req api.StartRequest) (_ joinStage, err error) {
	l, err := newLauncher(req)
	if err != nil {
		return joinStage{}, internal("streams", err)
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	// By pidfd: what it names cannot become another process, and no path of
	// the container leads to its namespaces.
	target, err := a.reaper.pidfd(within.pid)
	if err != nil {
		return joinStage{}, notRunning(within.id)
	}
	l.child = append(l.child, target)
	dir, err := os.Open(within.cgroup.dir)
	if err != nil {
		return joinStage{}, internal("cgroup", err)
	}
	defer dir.Close()
	attr := l.attr(dir)
	attr.Sys.Cloneflags = 0 // it joins those of the container
	pid, exited, err := a.reaper.start("/proc/self/exe", []string{stageName, "exec"}, attr)
	if err != nil {
		return joinStage{}, internal("fork", err)
	}
	l.closeChild()
	return joinStage{l, pid, exited}, nil
}

// join runs the stage that starts a process in p.within.
func (a *agent) join(p *process, r api.ExecRequest) (phases, error) {
	var marks phases
	marks.mark("start")
	var undo cleanup
	defer undo.run()
	req := joinRequest(r, p.within.filter)
	stage, err := a.startJoin(p.within, req)
	if err != nil {
		return nil, err
	}
	marks.mark("forked")
	kill := func() { _ = a.reaper.signal(stage.pid, unix.SIGKILL) }
	undo.add(stage.close)
	undo.add(func() {
		kill()
		<-stage.exited
	})
	// The stage is not in the pid namespace that dies with the container.
	defer context.AfterFunc(p.within.life, kill)()
	if err := stage.status.SetReadDeadline(time.Now().Add(execTimeout)); err != nil {
		return nil, internal("stage", err)
	}
	status, err := stage.handshake(stageConfig{req, stagePlace{NoBundle: p.within.noBundle}}, nil)
	if err != nil {
		return nil, a.joinError(p, err)
	}
	if err := a.takeOver(p, stage, status.PID, req, &undo); err != nil {
		return nil, internal("tty", err)
	}
	marks = append(marks, status.Phases...)
	marks.mark("started")
	undo.cancel()
	return marks, nil
}

// takeOver makes the process that a stage has started the agent's own, and lets
// the stage end. Without a process the stage ends in its place, with a message.
func (a *agent) takeOver(p *process, stage joinStage, pid int, req api.StartRequest, undo *cleanup) error {
	if pid == 0 {
		p.pid, p.exited = stage.pid, stage.exited
		return p.connect(stage.launcher, req)
	}
	p.pid, p.exited = pid, a.reaper.adopt(pid)
	undo.add(func() { _ = a.reaper.signal(pid, unix.SIGKILL) })
	if err := p.connect(stage.launcher, req); err != nil {
		return err
	}
	<-stage.exited
	a.reaper.settle(pid)
	return nil
}

// joinError is why a process could not join: if the container has ended
// meanwhile, that is the story.
func (a *agent) joinError(p *process, err error) error {
	if p.within.life.Err() != nil {
		return notRunning(p.within.id)
	}
	return err
}
