package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/logdriver"
	"github.com/micropod/micropod/pkg/logfile"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// fakeVM is a driver whose machine is a goroutine that speaks the guest's side
// of the protocol. Its fields say how it misbehaves.
type fakeVM struct {
	silent     bool       // never says hello
	startErr   *api.Error // of the process
	garbage    bool       // answers setup with nonsense
	output     string     // printed by the process, "\x02" before what goes to stderr
	echo       bool       // prints its input until the end of it
	exit       int        // code, once the process ends by itself
	runs       bool       // the process ends by a signal only
	ignore     []int      // signals without effect
	dies       bool       // the VM ends in the middle of the process
	floods     bool       // prints without end, and looks for signals in between
	noShutdown bool       // never leaves when asked
	dead       bool       // the process has ended before SIGKILL comes
	check      string     // how health checks go, see serveCheck
	startsOnce bool       // there is no VM after the first
	diesOnce   bool       // as dies, of the first VM
	frozen     bool       // never answers a pause, see freezing

	freezing chan struct{} // told of each pause that is not answered
	started  chan struct{} // told of a VM that runs, unless nil
	atSetup  func()        // called before setup is answered, unless nil
	stuck    bool          // never comes up

	noNIC, noRoutes *api.Error // why the guest refuses a network device, or its routes
	told            []api.NetworksRequest
	plugged         []api.NICRequest

	rest time.Duration // before the first start, by a restart policy

	mu      sync.Mutex
	signals []int
	tokens  []string
	m       *fakeMachine
}

type fakeMachine struct {
	vm       *fakeVM
	dies     bool
	c        vmm.Config
	done     chan struct{}
	once     sync.Once
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
	stdio    chan net.Conn
	checks   chan net.Conn // streams of health checks
	signal   chan int
	taps     []*os.File
}

func (f *fakeVM) Name() string                           { return "fake" }
func (f *fakeVM) Probe(context.Context) vmm.Availability { return vmm.Availability{OK: true} }

func (f *fakeVM) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	if f.startsOnce && f.m != nil {
		return nil, errors.New("no more VMs")
	}
	if f.stuck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l, err := net.Listen("unix", c.VsockPath)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.ConsolePath, []byte("booting\nKernel panic - not syncing: oops\x1b[2J\n"), 0o600); err != nil {
		return nil, err
	}
	m := &fakeMachine{vm: f, dies: f.dies || f.diesOnce && f.m == nil, c: c, done: make(chan struct{}), listener: l, stdio: make(chan net.Conn, 1), checks: make(chan net.Conn, 1), signal: make(chan int, 8)}
	for _, n := range c.NICs {
		tap, err := vmm.NewTAP(n.Device, n.MTU)
		if err != nil {
			return nil, err
		}
		m.taps = append(m.taps, tap)
	}
	f.m = m
	go m.accept()
	if f.started != nil {
		defer func() { f.started <- struct{}{} }()
	}
	if !f.silent {
		go m.control()
	}
	return m, nil
}

func (m *fakeMachine) PID() int              { return os.Getpid() }
func (m *fakeMachine) Done() <-chan struct{} { return m.done }
func (m *fakeMachine) Exit() vmm.Exit        { return vmm.Exit{} }

func (m *fakeMachine) Kill() error {
	m.once.Do(func() {
		m.listener.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, c := range m.conns {
			c.Close()
		}
		for _, t := range m.taps {
			t.Close()
		}
		close(m.done)
	})
	return nil
}

func (m *fakeMachine) own(c net.Conn) net.Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns = append(m.conns, c)
	return c
}

// accept answers connections to the agent's port.
func (m *fakeMachine) accept() {
	for {
		c, err := m.listener.Accept()
		if err != nil {
			return
		}
		m.own(c)
		line := make([]byte, len("CONNECT 1024\n"))
		io.ReadFull(c, line)
		fmt.Fprintf(c, "OK 1\n")
		var o api.Open
		if api.ReadMessage(c, api.KindOpen, &o) != nil || !slices.Contains(m.vm.tokens, o.Token) {
			continue
		}
		switch {
		case o.Purpose == api.PurposeControl:
			go m.serveCheck(c)
		case o.Purpose == api.PurposeNIC:
			m.vm.mu.Lock()
			m.vm.plugged = append(m.vm.plugged, *o.NIC)
			api.WriteMessage(c, api.KindReply, api.Reply{Error: m.vm.noNIC})
			m.vm.mu.Unlock()
		case o.Process == "c1":
			m.stdio <- c
		default:
			m.checks <- c
		}
	}
}

// control says hello and answers calls until the connection ends.
func (m *fakeMachine) control() {
	c, err := net.Dial("unix", fmt.Sprintf("%s_%d", m.c.VsockPath, api.ReadyPort))
	if err != nil {
		return
	}
	m.own(c)
	api.WriteMessage(c, api.KindHello, api.Hello{Version: api.Version, Kernel: "6.1-fake"})
	for {
		var r api.Request
		if api.ReadMessage(c, api.KindRequest, &r) != nil {
			return
		}
		m.answer(c, r)
	}
}

func (m *fakeMachine) answer(c net.Conn, r api.Request) {
	reply := api.Reply{ID: r.ID, Result: json.RawMessage(`{"pid":7}`)}
	switch r.Method {
	case api.MethodSetup:
		var s api.SetupRequest
		json.Unmarshal(r.Params, &s)
		m.vm.tokens = append(m.vm.tokens, s.Token)
		if m.vm.atSetup != nil {
			m.vm.atSetup()
		}
		if m.vm.garbage {
			c.Write([]byte("\xff\xff\xff\xff\xff not a frame"))
			return
		}
	case api.MethodStart:
		reply.Error = m.vm.startErr
		if reply.Error == nil {
			defer func() { go m.process(c) }()
		}
	case api.MethodExec:
		var e api.ExecRequest
		json.Unmarshal(r.Params, &e)
		if e.ID == "none" {
			reply.Error = &api.Error{Code: api.CodeNotFound, Message: "no such command"}
		} else {
			defer api.WriteMessage(c, api.KindExit, api.Exit{ID: e.ID, Code: 4, At: time.Now()})
		}
	case api.MethodSignal:
		var s api.SignalRequest
		json.Unmarshal(r.Params, &s)
		m.vm.mu.Lock()
		m.vm.signals = append(m.vm.signals, s.Signal)
		m.vm.mu.Unlock()
		switch {
		case m.vm.dead && s.Signal == 9:
			reply.Error = &api.Error{Code: api.CodeNotFound, Message: "no process runs"}
		case !slices.Contains(m.vm.ignore, s.Signal):
			m.signal <- s.Signal
		}
	case api.MethodNetworks:
		var n api.NetworksRequest
		json.Unmarshal(r.Params, &n)
		m.vm.mu.Lock()
		m.vm.told = append(m.vm.told, n)
		reply.Error = m.vm.noRoutes
		m.vm.mu.Unlock()
	case api.MethodFreeze:
		if m.vm.frozen {
			m.vm.freezing <- struct{}{}
			return
		}
	case api.MethodShutdown:
		if !m.vm.noShutdown {
			defer m.Kill()
		}
	}
	api.WriteMessage(c, api.KindReply, reply)
}

// process is the container's process.
func (m *fakeMachine) process(control net.Conn) {
	io1 := <-m.stdio
	out, errText, _ := strings.Cut(m.vm.output, "\x02")
	if out != "" { // an empty frame would be the stream's end
		api.WriteFrame(io1, api.KindStdout, []byte(out))
	}
	if errText != "" {
		api.WriteFrame(io1, api.KindStderr, []byte(errText))
	}
	for m.vm.echo {
		k, b, err := api.ReadFrame(io1, nil)
		if err != nil || k != api.KindStdin || len(b) == 0 {
			break
		}
		api.WriteFrame(io1, api.KindStdout, b)
	}
	if m.dies {
		m.Kill()
		return
	}
	code := m.vm.exit
	for n := 0; m.vm.floods && (n < 64 || len(m.signal) == 0); n++ { // more than the sockets hold
		if api.WriteFrame(io1, api.KindStdout, make([]byte, api.MaxData)) != nil {
			return
		}
	}
	if m.vm.runs || m.vm.floods {
		select {
		case sig := <-m.signal:
			code = 128 + sig
		case <-m.done:
			return
		}
	}
	api.WriteFrame(io1, api.KindStdout, nil)
	api.WriteFrame(io1, api.KindStderr, nil)
	api.WriteMessage(control, api.KindExit, api.Exit{ID: "c1", Code: code, At: time.Now()})
}

// life is one supervisor under test.
type life struct {
	t       *testing.T
	s       *supervisor
	store   *state.Store
	id      string
	outcome chan Outcome
	client  *Client // attached from the start
	service Service // of a VM that serves files
	ended   chan struct{}
}

func begin(t *testing.T, vm *fakeVM, change func(*Plan)) *life {
	t.Helper()
	store, err := state.Open(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	l := &life{t: t, store: store, id: state.NewID(), outcome: make(chan Outcome, 1), ended: make(chan struct{})}
	if err := store.Create(state.Config{ID: l.id, Name: "x"}, func(state.Paths) error { return nil }); err != nil {
		t.Fatal(err)
	}
	paths := store.Paths(l.id)
	lock, err := store.Lock(l.id)
	if err != nil {
		t.Fatal(err)
	}
	p := Plan{
		ID: l.id, Dir: paths.Dir, Driver: state.Driver{Name: "fake"},
		VM:    vmm.Config{ID: l.id, ConsolePath: paths.Console()},
		Setup: api.SetupRequest{Token: "secret"},
		Start: api.StartRequest{ID: "c1", Stdin: true},
		Log:   logdriver.Spec{Path: paths.Log()}, StopSignal: 15, StopTimeout: time.Minute,
		Limits: Limits{Boot: time.Minute, Call: time.Minute, Kill: time.Minute, Shutdown: time.Minute, Attached: time.Minute},
	}
	if change != nil {
		change(&p)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		var o Outcome
		json.NewDecoder(outR).Decode(&o)
		outR.Close()
		l.outcome <- o
	}()
	l.s, err = newSupervisor(store, inherited{lock: lock, outcome: outW, plan: p}, []vmm.Driver{vm})
	if err != nil {
		t.Fatal(err)
	}
	l.s.rest = vm.rest
	ours, theirs := socketPair(t)
	if p.Service {
		l.serve(ours, theirs, lock)
		return l
	}
	if l.client, err = NewClient(ours, Command{Op: OpAttach, Input: true, Once: true}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(l.ended)
		l.s.lives(theirs)
		theirs.Close() // as the end of the process would, and those that wait
		l.s.server.mu.Lock()
		for c := range l.s.server.waiting {
			c.conn.Close()
		}
		l.s.server.mu.Unlock()
		lock.Unlock()
	}()
	t.Cleanup(func() {
		l.s.server.each(func(s *supervisor) { s.asked.set(); s.kill(errKilled) })
		<-l.ended
		l.client.Close()
	})
	return l
}

func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", path); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// final reads the attached client to its end.
func (l *life) final() (Final, string) {
	l.t.Helper()
	var out strings.Builder
	f, err := l.client.Final(func(k api.Kind, b []byte) error {
		fmt.Fprintf(&out, "%d:%s ", k, b)
		return nil
	})
	if err != nil {
		l.t.Errorf("attached client: %v", err)
	}
	<-l.ended
	return f, out.String()
}

// nothingLeft checks that the container's directory holds records only.
func (l *life) nothingLeft() {
	l.t.Helper()
	entries, err := os.ReadDir(l.store.Paths(l.id).Dir)
	if err != nil {
		l.t.Fatal(err)
	}
	known := []string{"alive", "config.json", "status.json", "console.log", "container.log", "health.json"}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			l.t.Errorf("left behind: %s", e.Name())
		}
	}
	if held, err := l.store.Running(l.id); held || err != nil {
		l.t.Errorf("lock: held %v, %v", held, err)
	}
}

func (l *life) status() *state.Status {
	l.t.Helper()
	st, err := l.store.ReadStatus(l.id)
	if err != nil || st == nil {
		l.t.Fatalf("status: %v, %v", st, err)
	}
	return st
}

func TestRunToTheEnd(t *testing.T) {
	l := begin(t, &fakeVM{output: "out\x02err", exit: 7}, nil)
	f, out := l.final()
	if o := <-l.outcome; !o.OK {
		t.Errorf("outcome %+v", o)
	}
	if f.ExitCode != 7 || f.Error != "" || out != "17:out 18:err " {
		t.Errorf("final %+v, output %q", f, out)
	}
	st := l.status()
	if st.Phase != state.PhaseExited || st.ExitCode != 7 || st.Kernel != "6.1-fake" || st.VMM.PID != 0 ||
		st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt) {
		t.Errorf("status %+v", st)
	}
	var log strings.Builder
	err := logfile.Read(context.Background(), logfile.Config{Path: l.store.Paths(l.id).Log(), Format: logfile.CRI{}}, logfile.Options{Tail: -1}, func(x logfile.Line) error {
		fmt.Fprintf(&log, "%s:%s ", x.Stream, x.Text)
		return nil
	})
	if err != nil || log.String() != "stdout:out stderr:err " {
		t.Errorf("log %q, %v", log.String(), err)
	}
	l.nothingLeft()
}

func TestInputAndItsEnd(t *testing.T) {
	l := begin(t, &fakeVM{echo: true}, nil)
	for _, b := range [][]byte{[]byte("one"), []byte("two"), nil} {
		if err := l.client.Input(b); err != nil {
			t.Fatal(err)
		}
	}
	if f, out := l.final(); f.ExitCode != 0 || !strings.Contains(strings.ReplaceAll(out, "17: ", ""), "17:one 17:two") {
		t.Errorf("final %+v, output %q", f, out)
	}
}

// TestLostClientEndsInput: the client of `run -i` that is gone is the end of
// the container's input, or a process that reads would live for ever.
// The end of a client's input is the container's only if the container was made so.
func TestInputThatStays(t *testing.T) {
	l := begin(t, &fakeVM{echo: true}, nil)
	<-l.outcome
	c := l.command(Command{Op: OpAttach, Input: true})
	if err := c.Input(nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Input([]byte("still open")); err != nil {
		t.Fatal(err)
	}
	if k, b, err := c.Read(); err != nil || k != api.KindStdout || string(b) != "still open" {
		t.Errorf("%v %q %v", k, b, err)
	}
	if err := l.client.Input(nil); err != nil {
		t.Fatal(err)
	}
	l.final()
}

func TestLostClientEndsInput(t *testing.T) {
	l := begin(t, &fakeVM{echo: true, exit: 3}, nil)
	l.client.Close()
	<-l.ended
	if st := l.status(); st.ExitCode != 3 {
		t.Errorf("status %+v", st)
	}
}

func TestStartErrors(t *testing.T) {
	for _, c := range []struct {
		code api.Code
		want int
	}{{api.CodeNotFound, 127}, {api.CodeNotExecutable, 126}, {api.CodeInvalid, 125}, {api.CodeInternal, 125}} {
		l := begin(t, &fakeVM{startErr: &api.Error{Code: c.code, Phase: "exec", Message: "no such thing"}}, nil)
		f, _ := l.final()
		o := <-l.outcome
		if o.OK || o.ExitCode != c.want || f.ExitCode != c.want || !strings.Contains(o.Error, "no such thing") ||
			strings.Contains(o.Error, "exec: ") != (c.want == 125) {
			t.Errorf("%s: outcome %+v, final %+v", c.code, o, f)
		}
		l.nothingLeft()
	}
}

func TestGuestThatNeverAnswers(t *testing.T) {
	l := begin(t, &fakeVM{silent: true}, func(p *Plan) { p.Limits.Boot = 50 * time.Millisecond })
	l.final()
	o := <-l.outcome
	if o.OK || o.ExitCode != 125 || o.Phase != "boot" {
		t.Errorf("outcome %+v", o)
	}
	for _, want := range []string{"no answer from the guest", "the guest kernel panicked", "Kernel panic - not syncing: oops?[2J"} {
		if !strings.Contains(o.Error, want) {
			t.Errorf("error %q does not say %q", o.Error, want)
		}
	}
	l.nothingLeft()
}

func TestCauseBeforeALongTrace(t *testing.T) {
	console := filepath.Join(t.TempDir(), "console")
	text := "[ 0.1] Kernel panic - not syncing: System is deadlocked on memory\n" + strings.Repeat("[ 0.1]  some_function+0x13/0x200\n", 100)
	if err := os.WriteFile(console, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &supervisor{plan: Plan{VM: vmm.Config{ConsolePath: console}}}
	got := s.withConsole(errors.New("the guest went down")).Error()
	if !strings.Contains(got, "give it more with --memory") || strings.Count(got, "\n") != tailLines {
		t.Errorf("got %s", got)
	}
}

func TestGuestThatTalksNonsense(t *testing.T) {
	l := begin(t, &fakeVM{garbage: true}, func(p *Plan) { p.Limits.Kill = 50 * time.Millisecond })
	l.final()
	if o := <-l.outcome; o.OK || o.ExitCode != 125 || o.Phase != "setup" {
		t.Errorf("outcome %+v", o)
	}
	l.nothingLeft()
}

func TestVMThatDies(t *testing.T) {
	l := begin(t, &fakeVM{output: "last words", dies: true}, nil)
	f, out := l.final()
	if f.ExitCode != 137 || f.Error == "" || !strings.Contains(out, "last words") {
		t.Errorf("final %+v, output %q", f, out)
	}
	if st := l.status(); st.Phase != state.PhaseExited || st.ExitCode != 137 || st.Error == "" {
		t.Errorf("status %+v", st)
	}
	l.nothingLeft()
}

// command sends one command over the control socket.
func (l *life) command(c Command) *Client {
	l.t.Helper()
	cl, err := Dial(context.Background(), l.store.Paths(l.id), c)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { cl.Close() })
	return cl
}

func TestStop(t *testing.T) {
	short := 50 * time.Millisecond
	for name, c := range map[string]struct {
		ignore  []int
		want    int
		signals []int
		dead    bool // the VM had to be ended
	}{
		"obeys":          {nil, 143, []int{15}, false},
		"needs SIGKILL":  {[]int{15}, 137, []int{15, 9}, false},
		"ignores it all": {[]int{15, 9}, 137, []int{15, 9}, true},
	} {
		t.Run(name, func(t *testing.T) {
			vm := &fakeVM{runs: true, ignore: c.ignore}
			l := begin(t, vm, func(p *Plan) {
				p.StopTimeout = short
				if c.dead {
					p.Limits.Kill = 3 * time.Second // SIGKILL has to be asked for before
				} else if c.ignore == nil {
					p.StopTimeout = time.Minute
				}
			})
			<-l.outcome
			cl := l.command(Command{Op: OpStop})
			f, err := l.final()
			if f.ExitCode != c.want {
				t.Errorf("final %+v, %v", f, err)
			}
			var told Final
			if kind, b, err := cl.Read(); err != nil || kind != api.KindExit || api.Decode(b, &told) != nil || told != f {
				t.Errorf("the stopping client was told %+v, %v", told, err)
			}
			vm.mu.Lock()
			defer vm.mu.Unlock()
			if !slices.Equal(vm.signals, c.signals) {
				t.Errorf("signals %v, want %v", vm.signals, c.signals)
			}
			l.nothingLeft()
		})
	}
}

func TestStopWhileBooting(t *testing.T) {
	l := begin(t, &fakeVM{silent: true}, nil)
	l.command(Command{Op: OpStop})
	l.final()
	if o := <-l.outcome; o.OK || o.ExitCode != 137 {
		t.Errorf("outcome %+v", o)
	}
	l.nothingLeft()
}

// Many that wait do not keep out the one that stops.
func TestStopAmongManyWaiting(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, nil)
	<-l.outcome
	for range maxWaiting {
		l.s.server.stays <- struct{}{}
	}
	if _, err := l.command(Command{Op: OpWait}).Final(nil); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("one too many: %v", err)
	}
	l.command(Command{Op: OpStop})
	if f, err := l.final(); f.ExitCode != 143 {
		t.Errorf("final %+v, %v", f, err)
	}
}

func TestSignalIsAnswered(t *testing.T) {
	vm := &fakeVM{runs: true, ignore: []int{1}}
	l := begin(t, vm, nil)
	<-l.outcome
	for sig, wantErr := range map[int]bool{1: false, 0: true, 65: true, -3: true} {
		r, err := l.command(Command{Op: OpSignal, Signal: sig}).Reply()
		if err != nil || (r.Error != "") != wantErr {
			t.Errorf("signal %d: %+v, %v", sig, r, err)
		}
	}
}

// A pause is on record as long as it holds, and the stop signal ends it.
func TestPause(t *testing.T) {
	l := begin(t, &fakeVM{runs: true, ignore: []int{10}}, nil)
	<-l.outcome
	steps := []struct {
		cmd    Command
		answer string
		paused bool
	}{
		{Command{Op: OpUnpause}, errNotPaused.Error(), false},
		{Command{Op: OpPause}, "", true}, {Command{Op: OpPause}, errPaused.Error(), true},
		{Command{Op: OpSignal, Signal: 10}, "", true},
		{Command{Op: OpUnpause}, "", false}, {Command{Op: OpPause}, "", true},
	}
	for _, s := range steps {
		r, err := l.command(s.cmd).Reply()
		if err != nil || r.Error != s.answer || l.status().Paused != s.paused {
			t.Errorf("%+v: %+v, %v, paused %v", s.cmd, r, err, l.status().Paused)
		}
	}
	l.command(Command{Op: OpStop})
	l.final()
	if l.status().Paused {
		t.Error("paused after its end")
	}
}

// A guest that does not answer a pause is in nobody's way: SIGKILL ends it, or its
// VM, and a stop gets there.
func TestEndBesideAPauseWithoutAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		cmd    Command
		ignore []int
		want   int
	}{
		"kill":      {Command{Op: OpStop, Signal: 9}, nil, 137},
		"kill, too": {Command{Op: OpSignal, Signal: 9}, []int{9}, 137},
		"stop":      {Command{Op: OpStop}, nil, 143},
		"stops not": {Command{Op: OpStop}, []int{15, 9}, 137},
	} {
		t.Run(name, func(t *testing.T) {
			vm := &fakeVM{runs: true, ignore: c.ignore, frozen: true, freezing: make(chan struct{}, 1)}
			l := begin(t, vm, func(p *Plan) {
				// Who waits for the call waits until the test is given up.
				p.Limits.Call, p.Limits.Kill, p.StopTimeout = time.Hour, 50*time.Millisecond, 50*time.Millisecond
				if c.ignore == nil {
					p.Limits.Kill = time.Minute
				}
			})
			<-l.outcome
			l.command(Command{Op: OpPause})
			<-vm.freezing
			l.command(c.cmd)
			if f, _ := l.final(); f.ExitCode != c.want {
				t.Errorf("final %+v", f)
			}
			l.nothingLeft()
		})
	}
}

// A pause that is held ends with whoever holds it, however that ends.
func TestPauseHeld(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, nil)
	<-l.outcome
	c := l.command(Command{Op: OpPause, Hold: true})
	if r, err := c.Reply(); err != nil || r.Error != "" || !l.status().Paused {
		t.Fatalf("%+v, %v, paused %v", r, err, l.status().Paused)
	}
	w, err := l.store.Watch(l.id)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c.Close()
	for l.status().Paused {
		if err := w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPauseHeldLetsGo: of its own pause, and of no other.
func TestPauseHeldLetsGo(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, nil)
	<-l.outcome
	for name, tt := range map[string]struct {
		meanwhile []Op
		paused    bool
	}{
		"nobody else":       {nil, false},
		"unpaused":          {[]Op{OpUnpause}, false},
		"somebody's pause":  {[]Op{OpUnpause, OpPause}, true},
		"one that is over":  {[]Op{OpUnpause, OpPause, OpUnpause}, false},
		"one after another": {[]Op{OpUnpause, OpPause, OpUnpause, OpPause}, true},
	} {
		c := l.command(Command{Op: OpPause, Hold: true})
		if r, err := c.Reply(); err != nil || r.Error != "" {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		for _, op := range tt.meanwhile {
			if r, err := l.command(Command{Op: op}).Reply(); err != nil || r.Error != "" {
				t.Fatalf("%s: %s: %+v, %v", name, op, r, err)
			}
		}
		if r, err := c.LetGo(); err != nil || r.Error != "" || l.status().Paused != tt.paused {
			t.Errorf("%s: %+v, %v, paused %v", name, r, err, l.status().Paused)
		}
		if tt.paused {
			l.command(Command{Op: OpUnpause}).Reply()
		}
	}
}

// Whoever may read the container's directory finds the way to the guest, while
// there is one.
func TestToken(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, nil)
	<-l.outcome
	paths := l.store.Paths(l.id)
	if token, err := state.ReadToken(paths); token != "secret" || err != nil {
		t.Errorf("token %q, %v", token, err)
	}
	if st, err := os.Stat(paths.Token()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	l.command(Command{Op: OpStop})
	l.final()
	if _, err := state.ReadToken(paths); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
}

func TestAutoRemove(t *testing.T) {
	l := begin(t, &fakeVM{exit: 1, noShutdown: true}, func(p *Plan) { p.AutoRemove = true })
	if f, _ := l.final(); f.ExitCode != 1 {
		t.Errorf("final %+v", f)
	}
	if _, err := l.store.Resolve(l.id); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the container is still there: %v", err)
	}
	if _, err := os.Stat(l.store.Paths(l.id).Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
}

func TestStopThatKeeps(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, func(p *Plan) { p.AutoRemove = true })
	<-l.outcome
	l.command(Command{Op: OpStop, Keep: true})
	if f, err := l.final(); f.ExitCode != 143 {
		t.Errorf("final %+v, %v", f, err)
	}
	if st := l.status(); st.Phase != state.PhaseExited || st.ExitCode != 143 {
		t.Errorf("status %+v", st)
	}
	l.nothingLeft()
}

func TestGuestThatDoesNotLeave(t *testing.T) {
	l := begin(t, &fakeVM{noShutdown: true}, func(p *Plan) { p.Limits.Shutdown = 50 * time.Millisecond })
	if f, _ := l.final(); f.ExitCode != 0 {
		t.Errorf("final %+v", f)
	}
	l.nothingLeft()
}

// TestStuckClientIsDropped: a client that reads nothing cannot keep a
// container from ending.
func TestStuckClientIsDropped(t *testing.T) {
	l := begin(t, &fakeVM{echo: true, exit: 5}, func(p *Plan) { p.Limits.Attached, p.Limits.Kill = 50*time.Millisecond, 50*time.Millisecond })
	<-l.outcome
	stuck := l.command(Command{Op: OpAttach})
	w := l.command(Command{Op: OpWatch})
	if _, _, err := w.Read(); err != nil { // both are being served
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, api.MaxData)
		for range 64 { // more than the sockets between us hold
			if l.client.Input(buf) != nil {
				return
			}
		}
	}()
	go io.Copy(io.Discard, bufio.NewReader(l.client.conn))
	l.command(Command{Op: OpStop, Signal: 9})
	<-l.ended
	stuck.Close()
	l.nothingLeft()
}

// Clients that do not read take neither the process's time to end by itself, nor
// the flush of its disk.
func TestStopBesideStuckClients(t *testing.T) {
	vm := &fakeVM{floods: true}
	l := begin(t, vm, func(p *Plan) { p.Limits.Attached = 50 * time.Millisecond })
	<-l.outcome
	// They, and the client of the start, read nothing.
	stuck := []*Client{l.command(Command{Op: OpAttach}), l.command(Command{Op: OpAttach})}
	w := l.command(Command{Op: OpWatch})
	if _, _, err := w.Read(); err != nil { // all are being served
		t.Fatal(err)
	}
	var f Final
	if kind, b, err := l.command(Command{Op: OpStop}).Read(); err != nil || kind != api.KindExit || api.Decode(b, &f) != nil {
		t.Fatalf("frame %v, %v", kind, err)
	}
	if f.ExitCode != 143 || f.Error != "" {
		t.Errorf("final %+v", f)
	}
	<-l.ended
	for _, c := range append(stuck, l.client) {
		if f, err := c.Final(nil); !errors.Is(err, ErrGone) {
			t.Errorf("a stuck client got %+v, %v", f, err)
		}
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !slices.Equal(vm.signals, []int{15}) {
		t.Errorf("signals %v", vm.signals)
	}
	l.nothingLeft()
}

// SIGKILL to a process that has ended leaves its VM alone: its end is on the way.
func TestKillOfTheDead(t *testing.T) {
	l := begin(t, &fakeVM{runs: true, dead: true}, nil)
	<-l.outcome
	for _, sig := range []int{9, 2} { // the second one stands for the news of the end
		if r, err := l.command(Command{Op: OpSignal, Signal: sig}).Reply(); err != nil || r.Error != "" {
			t.Errorf("signal %d: %+v, %v", sig, r, err)
		}
	}
	if f, _ := l.final(); f.ExitCode != 130 || f.Error != "" {
		t.Errorf("final %+v", f)
	}
}

func TestWatchEndsWithTheLog(t *testing.T) {
	l := begin(t, &fakeVM{echo: true}, nil)
	<-l.outcome
	w := l.command(Command{Op: OpWatch})
	if _, _, err := w.Read(); err != nil {
		t.Fatal(err)
	}
	if err := l.client.Input([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Read(); err != nil {
		t.Errorf("no notice of the growth: %v", err)
	}
	l.client.Input(nil)
	l.final()
	for {
		if _, _, err := w.Read(); err != nil {
			break
		}
	}
}

func TestControlSocketIsPrivate(t *testing.T) {
	l := begin(t, &fakeVM{runs: true}, nil)
	<-l.outcome
	st, err := os.Stat(l.store.Paths(l.id).Control())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestNobodyThere(t *testing.T) {
	_, err := Dial(context.Background(), state.Paths{Dir: t.TempDir()}, Command{Op: OpWait})
	if !errors.Is(err, ErrGone) {
		t.Errorf("Dial: %v", err)
	}
}
