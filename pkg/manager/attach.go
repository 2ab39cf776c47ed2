package manager

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// Attachment is a caller's connection to a container's streams.
type Attachment struct {
	client *supervisor.Client
	m      *Manager
	id     string
	done   chan struct{}
	given  context.Context // ends when the attachment is given up
	giveUp context.CancelFunc
	result Result
	err    error
}

// Wait returns when the container has ended and is freed, or the user detached.
func (a *Attachment) Wait() (Result, error) {
	<-a.done
	return a.result, a.err
}

// abandon gives an attachment up whose container did not start.
func (a *Attachment) abandon() {
	a.giveUp() // whoever waits for the container holds its lock
	a.client.Close()
	<-a.done
}

// attachedPair makes the connection of a client that is attached before the
// supervisor exists; theirs is for the supervisor.
func attachedPair(c *state.Config, s *Streams) (*supervisor.Client, *os.File, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	client, err := supervisor.NewClient(conn, attachCommand(s, c))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return client, theirs, nil
}

func attachCommand(s *Streams, c *state.Config) supervisor.Command {
	once := c.Stdin && !c.TTY && !c.StdinStays
	return supervisor.Command{Op: supervisor.OpAttach, Input: s.In != nil, Once: once}
}

var errAttachRestarting = errors.New("you cannot attach to a restarting container, wait until it is running")

// Attach connects to a container that runs. What it printed before is in its log.
func (m *Manager) Attach(ctx context.Context, ref string, s *Streams) (*Attachment, error) {
	vm, err := m.resolve(ref)
	if err == nil && m.restarts(vm.ID) {
		return nil, errAttachRestarting
	}
	if err == nil {
		vm, err = m.running(ref)
	}
	if errors.Is(err, ErrNotRunning) {
		return nil, errors.New("you cannot attach to a stopped container, start it first")
	}
	if err != nil {
		return nil, err
	}
	if m.paused(vm.ID) {
		return nil, errors.New("you cannot attach to a paused container, unpause it first")
	}
	return m.attachRunning(ctx, vm, s)
}

// attachRunning connects to a container that already runs.
func (m *Manager) attachRunning(ctx context.Context, vm state.VM, s *Streams) (*Attachment, error) {
	if s == nil {
		return nil, nil
	}
	if m.restarts(vm.ID) {
		return nil, errAttachRestarting
	}
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return nil, err
	}
	client, err := m.dial(ctx, vm, attachCommand(s, c))
	if err != nil {
		return nil, err
	}
	m.tellContainer(events.ActionAttach, vm)
	return m.attach(client, vm.ID, c.TTY, s), nil
}

// attach moves bytes between a supervisor and the caller's streams.
func (m *Manager) attach(client *supervisor.Client, id string, tty bool, s *Streams) *Attachment {
	a := &Attachment{client: client, m: m, id: id, done: make(chan struct{})}
	a.given, a.giveUp = context.WithCancel(context.Background())
	detached := make(chan struct{})
	go func() {
		defer close(a.done)
		defer a.giveUp()
		defer client.Close()
		a.output(s, detached)
	}()
	if s.In != nil {
		go a.input(s, tty, detached)
	}
	go a.resizes(s.Resize)
	go a.signals(s.Signals)
	return a
}

// output copies until the end and sets the result.
func (a *Attachment) output(s *Streams, detached <-chan struct{}) {
	final, err := a.client.Final(func(k api.Kind, b []byte) error {
		return s.write(k, b)
	})
	select {
	case <-detached:
		a.result = Result{Detached: true}
		if vm, err := a.m.state.Resolve(a.id); err == nil {
			a.m.tellContainer(events.ActionDetach, vm)
		}
		return
	default:
	}
	if errors.Is(err, supervisor.ErrGone) {
		// The supervisor was lost, or it dropped us because nobody took the output:
		// then the end is yet to come. Whoever looks after it may find the next start.
		final, err = a.m.final(a.given, state.VM{ID: a.id, Name: a.id}, supervisor.Command{Op: supervisor.OpWait})
		if err != nil {
			a.result.ExitCode, a.err = a.m.afterLoss(a.id)
			return
		}
	}
	a.result.ExitCode, a.err = final.ExitCode, err
	if err == nil && final.Error != "" {
		a.err = errors.New(final.Error)
	}
}

// write hands a piece of output to the caller.
func (s *Streams) write(k api.Kind, b []byte) error {
	w := s.Out
	if k == api.KindStderr {
		w = s.Err
	}
	if w == nil {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// afterLoss finds out how a container ended whose supervisor said nothing.
func (m *Manager) afterLoss(id string) (int, error) {
	c, err := m.Inspect(context.Background(), id)
	if errors.Is(err, ErrNotFound) {
		return exitLost, errors.New(supervisorLost) // --rm
	}
	if err != nil {
		return 125, err
	}
	if c.Error != "" {
		return c.ExitCode, errors.New(c.Error)
	}
	return c.ExitCode, nil
}

// input copies the caller's input until its end, or until the detach keys.
func (a *Attachment) input(s *Streams, tty bool, detached chan<- struct{}) {
	if s.copyInput(tty, a.client.Input) {
		close(detached)
		a.client.Send(supervisor.Command{Op: supervisor.OpDetach})
		a.client.Close()
	}
}

// copyInput hands the caller's input to send, nothing for its end. It reports
// whether the detach keys were typed, and ends with them.
func (s *Streams) copyInput(tty bool, send func([]byte) error) (detach bool) {
	keys := detachKeys{}
	if tty {
		keys.want = s.DetachKeys
	}
	buf := make([]byte, api.MaxData/2)
	for {
		n, err := s.In.Read(buf)
		b, leave := keys.filter(buf[:n])
		if len(b) > 0 && send(b) != nil {
			return false
		}
		if leave {
			return true
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				send(nil)
			}
			return false
		}
	}
}

func (a *Attachment) resizes(sizes <-chan Size) {
	for {
		select {
		case sz, ok := <-sizes:
			if !ok {
				return
			}
			a.client.Send(supervisor.Command{Op: supervisor.OpResize, Cols: sz.Cols, Rows: sz.Rows})
		case <-a.done:
			return
		}
	}
}

// signals sends signals over connections of their own: input that the
// container does not read must not hold them up.
func (a *Attachment) signals(signals <-chan int) {
	for {
		select {
		case sig, ok := <-signals:
			if !ok {
				return
			}
			if err := a.m.signal(context.Background(), state.VM{ID: a.id, Name: a.id}, sig); err != nil {
				a.m.log.Debug("pass a signal on", "signal", sig, "err", err)
			}
		case <-a.done:
			return
		}
	}
}

// detachKeys finds a sequence of keys in a stream of input.
type detachKeys struct {
	want []byte
	seen int // how much of want the last bytes were
}

// filter returns what is to be passed on of b, and whether the sequence is
// complete. The keys of a sequence that breaks off are passed on late.
func (d *detachKeys) filter(b []byte) (pass []byte, complete bool) {
	if len(d.want) == 0 {
		return b, false
	}
	pass = make([]byte, 0, len(b)+d.seen)
	for _, c := range b {
		if c != d.want[d.seen] {
			pass = append(pass, d.want[:d.seen]...)
			d.seen = 0
		}
		if c != d.want[d.seen] {
			pass = append(pass, c)
			continue
		}
		d.seen++
		if d.seen == len(d.want) {
			d.seen = 0
			return pass, true
		}
	}
	return pass, false
}
