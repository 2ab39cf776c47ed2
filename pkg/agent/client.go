package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

// ErrClosed is wrapped by errors of calls on a connection that has ended.
var ErrClosed = errors.New("connection to the agent is closed")

// Client is one control connection. Safe for concurrent use.
type Client struct {
	conn  net.Conn
	hello api.Hello
	exits chan api.Exit
	done  chan struct{} // closed when the reader has ended

	wmu sync.Mutex // one frame at a time

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan api.Reply
	started map[string]bool // processes whose exit may come
	queue   []api.Exit      // never longer than started was
	wake    chan struct{}   // one token: the queue has grown, or the reader ended
	err     error           // why the connection ended

	stop     chan struct{} // closed by Close
	stopOnce sync.Once
}

func newClient(conn net.Conn, h api.Hello) *Client {
	c := &Client{
		conn: conn, hello: h,
		exits: make(chan api.Exit), done: make(chan struct{}),
		pending: make(map[uint64]chan api.Reply), started: make(map[string]bool),
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	go c.read()
	go c.deliver()
	return c
}

// Hello is what the agent said first, bounded and cleaned.
func (c *Client) Hello() api.Hello { return c.hello }

// Exits carries the ends of the processes that this client started, in order.
// It is closed when the connection has ended and all ends are delivered, or
// after Close.
func (c *Client) Exits() <-chan api.Exit { return c.exits }

// Close ends the connection; the guest leaves if it was the listener's. Idempotent.
func (c *Client) Close() error {
	c.stopOnce.Do(func() { close(c.stop) })
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// read handles everything that the guest sends, until the connection ends.
func (c *Client) read() {
	var err error
	for buf := make([]byte, 0, 4096); err == nil; {
		var k api.Kind
		var b []byte
		if k, b, err = api.ReadFrame(c.conn, buf); err == nil {
			err = c.handle(k, b)
		}
	}
	c.conn.Close()
	c.mu.Lock()
	c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, ch := range pending {
		close(ch)
	}
	close(c.done)
	c.notify()
}

func (c *Client) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) handle(k api.Kind, b []byte) error {
	switch k {
	case api.KindReply:
		var r api.Reply
		if err := api.Decode(b, &r); err != nil {
			return err
		}
		return c.reply(r)
	case api.KindExit:
		var e api.Exit
		if err := api.Decode(b, &e); err != nil {
			return err
		}
		if err := e.Check(time.Now()); err != nil {
			return err
		}
		return c.exit(e)
	}
	return fmt.Errorf("frame of kind %d on a control connection: %w", k, api.ErrFrame)
}

// reply hands a reply to its caller. One that nobody waits for any more is
// dropped; one to a call that was never made breaks the protocol.
func (c *Client) reply(r api.Reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ID == 0 || r.ID > c.next {
		return fmt.Errorf("reply to call %d, which was not made: %w", r.ID, api.ErrFrame)
	}
	if r.Error != nil {
		r.Error.Clean()
	}
	if ch, ok := c.pending[r.ID]; ok {
		delete(c.pending, r.ID)
		ch <- r
	}
	return nil
}

// exit queues the end of a process that this client started, once each.
func (c *Client) exit(e api.Exit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started[e.ID] {
		return fmt.Errorf("exit of %s, which was not started: %w", e.ID, api.ErrFrame)
	}
	delete(c.started, e.ID)
	c.queue = append(c.queue, e)
	c.notify()
	return nil
}

// deliver feeds Exits, so that a slow receiver holds up no replies.
func (c *Client) deliver() {
	defer close(c.exits)
	for {
		c.mu.Lock()
		queue, ended := c.queue, c.err != nil
		c.queue = nil
		c.mu.Unlock()
		for _, e := range queue {
			select {
			case c.exits <- e:
			case <-c.stop:
				return
			}
		}
		if len(queue) == 0 {
			if ended {
				return
			}
			<-c.wake
		}
	}
}

// call makes one call. It returns the guest's *api.Error, ctx's error, or an
// error that wraps ErrClosed.
func (c *Client) call(ctx context.Context, m api.Method, params, result any) error {
	b, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m, err)
	}
	ch := make(chan api.Reply, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return fmt.Errorf("%s: %w", m, c.err)
	}
	c.next++
	id := c.next
	c.pending[id] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
	}()
	if err := c.send(ctx, api.Request{ID: id, Method: m, Params: b}); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	select {
	case r, ok := <-ch:
		return c.result(m, r, ok, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: the agent does not answer: %w", m, context.Cause(ctx))
	}
}

func (c *Client) result(m api.Method, r api.Reply, ok bool, result any) error {
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return fmt.Errorf("%s: %w", m, c.err)
	}
	if r.Error != nil {
		return r.Error
	}
	if result == nil {
		return nil
	}
	if err := api.Decode(r.Result, result); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	return nil
}

// send writes a request. A guest that does not read is given up with ctx: half
// a frame leaves the connection useless. One that has it all keeps it, even if
// ctx ended meanwhile.
func (c *Client) send(ctx context.Context, r api.Request) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(hurried)
		c.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	err := api.WriteMessage(c.conn, api.KindRequest, r)
	if !stop() {
		<-hurried
		c.conn.SetWriteDeadline(time.Time{})
	}
	if err == nil || errors.Is(err, api.ErrFrame) {
		return err
	}
	c.conn.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Setup prepares the guest. Once per VM.
func (c *Client) Setup(ctx context.Context, r api.SetupRequest) (api.SetupReply, error) {
	var reply api.SetupReply
	err := c.call(ctx, api.MethodSetup, r, &reply)
	reply.Phases = api.CleanPhases(reply.Phases)
	return reply, err
}

// Start starts a container. It returns once its command has been executed, or
// the *api.Error that says why it was not. The end comes through Exits.
func (c *Client) Start(ctx context.Context, r api.StartRequest) (api.StartReply, error) {
	return c.launch(ctx, api.MethodStart, r.ID, r)
}

// Exec starts one more process in a container, and is else as Start.
func (c *Client) Exec(ctx context.Context, r api.ExecRequest) (api.StartReply, error) {
	return c.launch(ctx, api.MethodExec, r.ID, r)
}

// launch makes a call that starts the process id.
func (c *Client) launch(ctx context.Context, m api.Method, id string, params any) (api.StartReply, error) {
	var reply api.StartReply
	if err := api.CheckID(id); err != nil {
		return reply, err
	}
	c.mu.Lock()
	again := c.started[id]
	c.started[id] = true
	c.mu.Unlock()
	err := c.call(ctx, m, params, &reply)
	if err == nil && reply.PID <= 0 {
		err = fmt.Errorf("%s: process id %d: %w", m, reply.PID, api.ErrFrame)
	}
	var refused *api.Error
	if errors.As(err, &refused) && !again {
		c.mu.Lock()
		delete(c.started, id)
		c.mu.Unlock()
	}
	reply.Phases = api.CleanPhases(reply.Phases)
	return reply, err
}

// Signal sends a signal to a container's first process. CodeNotFound: it has ended.
func (c *Client) Signal(ctx context.Context, r api.SignalRequest) error {
	return c.call(ctx, api.MethodSignal, r, nil)
}

// Resize sets the size of a container's terminal.
func (c *Client) Resize(ctx context.Context, r api.ResizeRequest) error {
	return c.call(ctx, api.MethodResize, r, nil)
}

// Freeze stops all processes of a container, or lets them go on.
func (c *Client) Freeze(ctx context.Context, r api.FreezeRequest) error {
	return c.call(ctx, api.MethodFreeze, r, nil)
}

// maxProcesses bounds what a guest can make Processes collect.
const maxProcesses = 1 << 15

// Processes lists the processes of a container, those of Exec among them, by
// ascending pid.
func (c *Client) Processes(ctx context.Context, containerID string) ([]api.Process, error) {
	var all []api.Process
	r := api.ProcessesRequest{ID: containerID}
	for {
		var reply api.ProcessesReply
		if err := c.call(ctx, api.MethodProcesses, r, &reply); err != nil {
			return nil, err
		}
		if err := reply.Check(r); err != nil {
			return nil, fmt.Errorf("%s: %w", api.MethodProcesses, err)
		}
		all = append(all, reply.Processes...)
		if !reply.More {
			return all, nil
		}
		if len(all) > maxProcesses {
			return nil, fmt.Errorf("%s: more than %d: %w", api.MethodProcesses, maxProcesses, api.ErrFrame)
		}
		r.After = all[len(all)-1].PID
	}
}

// Shutdown makes the guest kill what runs, sync its disks and leave; the VM
// ends soon after. That the connection ends first counts as an answer.
func (c *Client) Shutdown(ctx context.Context) error {
	err := c.call(ctx, api.MethodShutdown, struct{}{}, nil)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
