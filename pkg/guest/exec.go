package guest

import (
	"context"
	"fmt"
	"os"
	"strings"
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

// joinRequest is an Exec in the words that stage and launcher know.
func joinRequest(r api.ExecRequest) api.StartRequest {
	process := *r.Process
	if r.Privileged {
		var all []string
		for name := range strings.FieldsSeq(capNames) {
			all = append(all, "CAP_"+name)
		}
		process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	}
	return api.StartRequest{
		ID: r.ID, Spec: &specs.Spec{Process: &process, Linux: &specs.Linux{}},
		User: r.User, GroupAdd: r.GroupAdd, Stdin: r.Stdin,
	}
}

// join runs the stage that starts a process in p.within.
func (a *agent) join(p *process, r api.ExecRequest) (phases, error) {
	var marks phases
	marks.mark("start")
	var undo cleanup
	defer undo.run()
	req := joinRequest(r)
	l, err := newLauncher(req)
	if err != nil {
		return nil, internal("streams", err)
	}
	undo.add(l.close)
	// By pidfd: what it names cannot become another process, and no path of
	// the container leads to its namespaces.
	target, err := a.reaper.pidfd(p.within.pid)
	if err != nil {
		return nil, notRunning(p.within.id)
	}
	l.child = append(l.child, target)
	dir, err := os.Open(p.within.cgroup.dir)
	if err != nil {
		return nil, internal("cgroup", err)
	}
	attr := l.attr(dir)
	attr.Sys.Cloneflags = 0 // it joins those of the container
	stage, exited, err := a.reaper.start("/proc/self/exe", []string{stageName, "exec"}, attr)
	dir.Close()
	if err != nil {
		return nil, internal("fork", err)
	}
	marks.mark("forked")
	l.closeChild()
	undo.add(func() {
		_ = a.reaper.signal(stage, unix.SIGKILL)
		<-exited
	})
	// The stage is not in the pid namespace that dies with the container.
	kill := func() { _ = a.reaper.signal(stage, unix.SIGKILL) }
	defer context.AfterFunc(p.within.life, kill)()
	if err := l.status.SetReadDeadline(time.Now().Add(execTimeout)); err != nil {
		return nil, internal("stage", err)
	}
	status, err := l.handshake(stageConfig{StartRequest: req})
	if err != nil {
		return nil, a.joinError(p, err)
	}
	if status.PID == 0 { // the stage ends in the command's place, with a message
		p.pid, p.exited = stage, exited
	} else {
		p.pid, p.exited = status.PID, a.reaper.adopt(status.PID)
		undo.add(func() { _ = a.reaper.signal(p.pid, unix.SIGKILL) })
	}
	if err := p.connect(l, req); err != nil { // lets the stage end
		return nil, internal("tty", err)
	}
	if status.PID != 0 {
		<-exited
		a.reaper.settle(p.pid)
	}
	marks = append(marks, status.Phases...)
	marks.mark("started")
	undo.cancel()
	return marks, nil
}

// joinError is why a process could not join: if the container has ended
// meanwhile, that is the story.
func (a *agent) joinError(p *process, err error) error {
	if p.within.life.Err() != nil {
		return notRunning(p.within.id)
	}
	return err
}
