package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// ExecOptions describe a further process in a container that runs. The zero
// value of a field means that the container's own decides.
type ExecOptions struct {
	Command []string
	// Env holds "K=V" entries; "K" alone removes the container's variable.
	Env        []string
	User       string
	Workdir    string
	TTY        bool
	Privileged bool // every capability of the guest
}

// Execution is a process that Exec started, joined to the caller's streams.
type Execution struct {
	client   *agent.Client
	stdio    *agent.Stdio
	id       string
	done     chan struct{}
	detached chan struct{}
	result   Result
	err      error
	tell     func(events.Action, ...string)
}

// Wait returns when the process has ended and all its output is written, or the
// user detached.
func (e *Execution) Wait() (Result, error) {
	<-e.done
	return e.result, e.err
}

// ExecError is returned by Exec when the process could not be started.
type ExecError struct {
	ExitCode int // 126 or 127, as docker
	Err      error
}

func (e *ExecError) Error() string { return e.Err.Error() }
func (e *ExecError) Unwrap() error { return e.Err }

// Exec starts a process in a container that runs. With streams the connection
// goes to the guest itself, past the supervisor, and the caller gets the
// Execution; without, the supervisor starts the process, and the Execution is
// nil. A caller that goes away leaves the process running.
func (m *Manager) Exec(ctx context.Context, ref string, o ExecOptions, s *Streams) (*Execution, error) {
	vm, err := m.running(ref)
	if err == nil && m.paused(vm.ID) {
		err = execPaused(vm)
	}
	if err != nil {
		return nil, err
	}
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, m.execDetached(ctx, vm, execRequest(state.NewID(), c, o, nil))
	}
	g, err := m.guest(vm)
	if err != nil {
		return nil, err
	}
	defer g.close()
	e := &Execution{id: state.NewID(), done: make(chan struct{}), detached: make(chan struct{})}
	if e.client, err = agent.Dial(ctx, g.vsock, g.token); err != nil {
		return nil, m.guestLost(vm, err)
	}
	failpoint.Here(failpoint.ExecDialled)
	if e.stdio, err = agent.OpenStdio(ctx, g.vsock, g.token, e.id); err != nil {
		e.client.Close()
		return nil, m.guestLost(vm, err)
	}
	e.tell = func(a events.Action, attributes ...string) {
		m.tellContainer(a, vm, append(attributes, "execID", e.id)...)
	}
	failpoint.Here(failpoint.ExecStreams)
	e.tell(events.Exec(events.ActionExecCreate, o.Command))
	e.tell(events.Exec(events.ActionExecStart, o.Command))
	if _, err = e.client.Exec(ctx, execRequest(e.id, c, o, s)); err != nil {
		e.close()
		return nil, m.execError(vm, err)
	}
	failpoint.Here(failpoint.ExecStarted)
	e.run(o.TTY, s)
	return e, nil
}

// execDetached has the supervisor start a process: it stays, and hears of the end.
func (m *Manager) execDetached(ctx context.Context, vm state.VM, r api.ExecRequest) error {
	answer, err := m.ask(ctx, vm, supervisor.Command{Op: supervisor.OpExec, Exec: &r})
	switch {
	case err != nil:
		return err
	case answer.Code != "":
		return m.execError(vm, &api.Error{Code: answer.Code, Message: answer.Error})
	case answer.Error != "":
		return m.guestLost(vm, errors.New(answer.Error))
	}
	return nil
}

// running finds a container whose process runs.
func (m *Manager) running(ref string) (state.VM, error) {
	vm, err := m.resolve(ref)
	if err != nil {
		return vm, err
	}
	st, running, err := m.status(vm)
	if err == nil && running && st != nil && st.Phase == state.PhaseRestarting {
		err = restarting(vm)
	}
	if err == nil && (!running || st == nil || st.Phase != state.PhaseRunning) {
		err = notRunning(vm)
	}
	return vm, err
}

func execPaused(vm state.VM) error {
	return fmt.Errorf("container %s is paused, unpause the container before exec", vm.Name)
}

// guestAddress is how a VM's agent is reached.
type guestAddress struct {
	dir          *os.File
	vsock, token string
}

func (g guestAddress) close() { g.dir.Close() }

// guest finds the agent of a VM. The socket is named through a descriptor of
// its directory: the whole path may be too long for one.
func (m *Manager) guest(vm state.VM) (guestAddress, error) {
	dir, err := os.Open(m.state.Paths(vm.ID).Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return guestAddress{}, notRunning(vm)
	}
	if err != nil {
		return guestAddress{}, fmt.Errorf("open container directory: %w", err)
	}
	paths := state.Paths{Dir: fmt.Sprintf("/proc/self/fd/%d", dir.Fd())}
	token, err := state.ReadToken(paths)
	if errors.Is(err, fs.ErrNotExist) {
		err = m.guestLost(vm, errors.New("it was started by an older micropod: restart the container"))
	}
	if err != nil {
		dir.Close()
		return guestAddress{}, err
	}
	return guestAddress{dir, paths.Vsock(), token}, nil
}

// guestLost is an error of a connection to the guest: if the container has
// ended meanwhile, that is the story.
func (m *Manager) guestLost(vm state.VM, err error) error {
	if running, rerr := m.state.Running(vm.ID); rerr == nil && !running {
		return notRunning(vm)
	}
	return fmt.Errorf("reach the guest of %s: %w", vm.Name, err)
}

// execError gives the guest's answer docker's exit code.
func (m *Manager) execError(vm state.VM, err error) error {
	if err == nil {
		return nil
	}
	var refused *api.Error
	switch {
	case !errors.As(err, &refused):
		return m.guestLost(vm, err)
	case refused.Code == api.CodeConflict && m.paused(vm.ID):
		return execPaused(vm)
	case refused.Code == api.CodeConflict:
		return notRunning(vm)
	case refused.Code == api.CodeNotFound:
		return &ExecError{ExitCode: 127, Err: refused}
	}
	return &ExecError{ExitCode: 126, Err: refused}
}

// execRequest is what the agent is told about a process: the container's own,
// with other words. Pure, but for the first size of the terminal.
func execRequest(id string, c *state.Config, o ExecOptions, s *Streams) api.ExecRequest {
	p := newSpec(c).Process
	p.Args, p.Terminal = o.Command, o.TTY
	p.Cwd = either(o.Workdir, p.Cwd)
	p.Env = execEnvironment(c, o)
	r := api.ExecRequest{
		ID: id, Container: c.ID, Process: p, User: either(o.User, c.User), GroupAdd: c.GroupAdd,
		Privileged: o.Privileged, Detach: s == nil, Stdin: s != nil && s.In != nil,
	}
	if s != nil {
		select {
		case size := <-s.Resize:
			p.ConsoleSize = &specs.Box{Width: uint(size.Cols), Height: uint(size.Rows)}
		default:
		}
	}
	return r
}

// defaultTerm is the variable of a process with a terminal.
const defaultTerm = "TERM=xterm"

// execEnvironment is the container's environment with the changes of an exec.
// TERM comes with the terminal of the process, not with the container's.
func execEnvironment(c *state.Config, o ExecOptions) []string {
	env := slices.Clone(c.Env)
	if c.TTY && !o.TTY {
		env = slices.DeleteFunc(env, func(kv string) bool { return kv == defaultTerm })
	}
	if o.TTY && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		// After the host name, where it is in the environment of a container.
		at := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOSTNAME=") })
		env = slices.Insert(env, at+1, defaultTerm)
	}
	return changeEnvironment(env, o.Env)
}

// run moves bytes between the process and the caller until the end.
func (e *Execution) run(tty bool, s *Streams) {
	go func() {
		defer close(e.done)
		defer e.close()
		e.output(s)
	}()
	if s.In != nil {
		go e.input(s, tty)
	}
	if tty {
		go e.resizes(s.Resize)
	}
}

func (e *Execution) close() {
	if e.stdio != nil {
		e.stdio.Close()
	}
	e.client.Close()
}

// output copies until both streams have ended, and takes the exit code.
func (e *Execution) output(s *Streams) {
	for {
		k, b, err := e.stdio.ReadFrame()
		if err == nil {
			err = s.write(k, b)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			e.lost(err)
			return
		}
	}
	exit, ok := <-e.client.Exits()
	if !ok {
		e.lost(errors.New("its end was not reported"))
		return
	}
	e.result.ExitCode = exit.Code
	e.tell(events.ActionExecDie, "exitCode", strconv.Itoa(exit.Code))
}

// lost ends an Execution whose process was not seen to end. With the container
// it was killed.
func (e *Execution) lost(err error) {
	select {
	case <-e.detached:
		e.result = Result{Detached: true}
		e.tell(events.ActionExecDetach)
		return
	default:
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, agent.ErrClosed) {
		e.result.ExitCode = 137
		e.tell(events.ActionExecDie, "exitCode", "137")
		return
	}
	e.result.ExitCode, e.err = 125, fmt.Errorf("process in the container: %w", err)
}

// input copies the caller's input until its end, or until the detach keys.
func (e *Execution) input(s *Streams, tty bool) {
	send := func(b []byte) error {
		if len(b) == 0 {
			return e.stdio.CloseStdin()
		}
		return e.stdio.WriteStdin(b)
	}
	if s.copyInput(tty, send) {
		close(e.detached)
		e.stdio.Close()
	}
}

func (e *Execution) resizes(sizes <-chan Size) {
	for {
		select {
		case sz, ok := <-sizes:
			if !ok {
				return
			}
			// It fails only when the process ends, which shows elsewhere.
			_ = e.client.Resize(context.Background(), api.ResizeRequest{ID: e.id, Cols: sz.Cols, Rows: sz.Rows})
		case <-e.done:
			return
		}
	}
}
