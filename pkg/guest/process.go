package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// process is a container, which is its first process and what belongs to it,
// or a process of Exec in one.
type process struct {
	id     string
	pid    int
	within *process // the container of an Exec's process; nil for a container
	cgroup *cgroup  // of a container
	io     *stdio
	tty    *os.File // master of its terminal, nil without
	peer   *os.File // a slave, so that the terminal outlives a process that closes it
	out    []pipe   // the streams to copy to the host
	exited <-chan syscall.WaitStatus
	owner  *control     // who is told about the end
	filter *api.Seccomp // of a container, and of every process in it
	// noBundle is stageConfig.NoBundle, for every process in a container.
	noBundle bool
	etc      []etcFile // of a container: what follows its networks
	live     bool      // launched: all of the above is set (under agent.mu)
	// root is that of a container that is not the guest's first.
	root *root

	life  context.Context // until the process has been reaped
	end   func()          // ends life
	execs sync.WaitGroup  // of a container: processes of Exec that are not reaped
}

func newProcess(id string, owner *control) *process {
	p := &process{id: id, owner: owner}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

type pipe struct {
	kind api.Kind
	file *os.File
}

// start starts a container; what it returns as after follows the process to
// its end and must run once the reply is on its way.
func (a *agent) start(c *control, r api.StartRequest, text json.RawMessage) (any, func(), error) {
	if err := checkStart(r); err != nil {
		return nil, nil, err
	}
	if r.Init && needsLoader {
		return nil, nil, invalid("init", "--init needs an agent that is linked statically: build micropod with make build, or with CGO_ENABLED=0")
	}
	p := newProcess(r.ID, c)
	p.filter = r.Seccomp
	if err := a.reserve(p, r.OwnRoot); err != nil {
		return nil, nil, err
	}
	return a.begin(p, func() (phases, error) { return a.launch(p, r, text) })
}

// begin launches a process whose place is reserved.
func (a *agent) begin(p *process, launch func() (phases, error)) (any, func(), error) {
	phases, err := launch()
	if err != nil {
		a.release(p)
		p.root.leave()
		p.end()
		p.io.abort()
		return nil, nil, err
	}
	a.mu.Lock()
	p.live = true
	late := p.root != nil && p.root.ending // whoever ended it did not know the process yet
	a.mu.Unlock()
	if late {
		_ = a.reaper.signal(p.pid, unix.SIGKILL)
	}
	return api.StartReply{PID: p.pid, Phases: phases}, func() { go a.log.contain("process "+p.id, func() { a.follow(p) }) }, nil
}

// reserve takes the id, the streams that may have been opened for it, and its root
// file system if it has one of its own.
func (a *agent) reserve(p *process, ownRoot bool) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != setUp {
		return invalid("start", "the guest is not set up")
	}
	if a.procs[p.id] != nil {
		return invalid("start", "container %s runs already", p.id)
	}
	if ownRoot {
		if p.root, err = a.enterRootLocked(p.id); err != nil {
			return err
		}
	}
	a.procs[p.id] = p
	p.io = a.slotLocked(p.id)
	return nil
}

func (a *agent) release(p *process) {
	a.mu.Lock()
	delete(a.procs, p.id)
	if a.slots[p.id] == p.io {
		delete(a.slots, p.id)
	}
	a.mu.Unlock()
}

// launch runs the container stage up to the moment before its exec. text is the
// request as it came.
func (a *agent) launch(p *process, r api.StartRequest, text json.RawMessage) (phases, error) {
	var marks phases
	marks.mark("start")
	var undo cleanup
	defer undo.run()
	files, err := writeEtcFiles(etcDir, r)
	if err != nil {
		return nil, internal("etc", err)
	}
	place := p.root.placeOf()
	if p.root == nil { // else they are the first container's
		p.etc = []etcFile{{files["/etc/hosts"], hostsFile(r.Hosts)}, {files["/etc/resolv.conf"], resolvFile(r.DNS)}}
	}
	p.noBundle, err = trust(etcDir, place.Root, r, files)
	if err != nil {
		return nil, internal("certificates", err)
	}
	if r.AllDevices {
		if r.Spec.Linux.Devices, err = guestDevices("/dev"); err != nil {
			return nil, internal("dev", err)
		}
		text = nil // it does not hold these
	}
	p.cgroup, err = newCgroup(cgroupDir, "ctr-"+p.id, r.Spec.Linux.Resources)
	if err != nil {
		return nil, internal("cgroup", err)
	}
	undo.add(func() { _ = p.cgroup.remove() })
	l, err := newLauncher(r)
	if err != nil {
		return nil, internal("streams", err)
	}
	undo.add(l.close)
	p.pid, p.exited, err = a.fork(p.cgroup, l, r)
	if err != nil {
		return nil, err
	}
	marks.mark("forked")
	l.closeChild()
	undo.add(func() { // before the rest: nothing can be removed under a live process
		_ = a.reaper.signal(p.pid, unix.SIGKILL)
		<-p.exited
	})
	status, err := l.handshake(stageConfig{r, stagePlace{Root: place.Root, Files: files, NoBundle: p.noBundle}}, text)
	if err != nil {
		return nil, err
	}
	if err := p.connect(l, r); err != nil {
		return nil, internal("tty", err)
	}
	marks = append(marks, status.Phases...)
	marks.mark("started")
	undo.cancel()
	return marks, nil
}

// fork starts the container stage in a cgroup that has its wall of devices before.
func (a *agent) fork(c *cgroup, l *launcher, r api.StartRequest) (int, <-chan syscall.WaitStatus, error) {
	dir, err := os.Open(c.dir)
	if err != nil {
		return 0, nil, internal("cgroup", err)
	}
	defer dir.Close()
	if err := a.holdDevices(dir, r); err != nil {
		return 0, nil, internal("devices", err)
	}
	pid, exited, err := a.reaper.start("/proc/self/exe", []string{stageName, "container"}, l.attr(dir))
	if err != nil {
		return 0, nil, internal("fork", err)
	}
	return pid, exited, nil
}

// connect takes over the streams that l has opened.
func (p *process) connect(l *launcher, r api.StartRequest) error {
	if !r.Spec.Process.Terminal {
		p.out = []pipe{{api.KindStdout, l.stdout}, {api.KindStderr, l.stderr}}
		p.io.run(l.stdin, false)
		return l.socket.Close()
	}
	var err error
	if p.tty, p.peer, err = l.terminal(); err != nil {
		return err
	}
	p.out = []pipe{{api.KindStdout, p.tty}}
	if r.Stdin {
		p.io.run(p.tty, true)
	} else {
		p.io.run(nil, true)
	}
	return nil
}

// follow waits for the end of the process and reports it, after all output.
func (a *agent) follow(p *process) {
	var pumps sync.WaitGroup
	for _, s := range p.out {
		pumps.Go(func() { a.log.contain("output of "+p.id, func() { p.io.pump(s.kind, s.file) }) })
	}
	ws := <-p.exited
	at := time.Now()
	a.ended(p)
	if p.peer != nil {
		p.peer.Close()
	} else {
		p.io.closeStdin()
	}
	stop := p.io.giveUp()
	pumps.Wait()
	p.io.finish()
	stop()
	exit := api.Exit{ID: p.id, At: at}
	exit.Code, exit.Signal = exitCode(ws)
	if p.cgroup != nil {
		exit.OOMKilled = p.cgroup.oomKilled()
		if err := p.cgroup.remove(); err != nil {
			a.log.printf("remove cgroup of %s: %v", p.id, err)
		}
	}
	a.release(p)
	p.root.leave() // no earlier: who finds it gone starts the container anew
	// Whoever asked for an Exec may be gone: then nobody wants to know.
	if err := p.owner.send(api.KindExit, exit); err != nil && p.within == nil {
		a.log.printf("report the end of %s: %v", p.id, err)
	}
}

// ended makes the death of a process known. With a container's first process
// the kernel has killed and reaped all of its pid namespace: no writer of its
// streams is left. What an Exec's process has started may live on and hold them.
func (a *agent) ended(p *process) {
	a.mu.Lock()
	p.end()
	a.mu.Unlock()
	if p.within == nil {
		if !p.execsEnd(stopTimeout) {
			a.log.printf("a process that was joining %s did not end within %s", p.id, stopTimeout)
		}
		return
	}
	p.cut()
	p.within.execs.Done()
}

// execsEnd waits until all processes of Exec are reaped. The kernel has killed
// those that run; a stage that joins is killed by the end of the container's life.
func (p *process) execsEnd(limit time.Duration) bool { return over(&p.execs, limit) }

// over waits until all of a group are done, for as long as limit.
func over(group *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// cut ends the reading of the streams: what they hold now is all that counts.
func (p *process) cut() {
	for _, s := range p.out {
		_ = s.file.SetReadDeadline(time.Unix(1, 0)) // fails if it has ended, and is closed
	}
}

// cleanup is a stack of undo steps, run unless cancelled.
type cleanup struct{ steps []func() }

func (c *cleanup) add(f func()) { c.steps = append(c.steps, f) }
func (c *cleanup) cancel()      { c.steps = nil }
func (c *cleanup) run() {
	for i := len(c.steps) - 1; i >= 0; i-- {
		c.steps[i]()
	}
}

// stageConfig is what the container stage is told.
type stageConfig struct {
	api.StartRequest
	stagePlace
}

// stagePlace is what the agent adds to the host's request.
type stagePlace struct {
	Root  string            // the overlay
	Files map[string]string // path in the container -> file of the guest
	// NoBundle: there are CA certificates for the container, and the image has none.
	NoBundle bool `json:",omitempty"`
}

// stageStatus is the stage's answer, just before it executes the command.
type stageStatus struct {
	Error  *api.Error  `json:"error,omitempty"`
	Phases []api.Phase `json:"phases,omitempty"`
	// PID of the process that an exec's stage has started, in the guest; 0 if
	// the kernel could not execute the command, and the stage ends in its place.
	PID int `json:"pid,omitempty"`
}

// readStatus reads the stage's answer and waits for its exec, which closes the
// pipe. An end without an answer is an error.
func readStatus(r io.Reader) (stageStatus, error) {
	var s stageStatus
	if err := json.NewDecoder(io.LimitReader(r, api.MaxReply)).Decode(&s); err != nil {
		return s, internal("stage", fmt.Errorf("the container stage ended without an answer: %w", err))
	}
	if s.Error != nil {
		return s, s.Error
	}
	_, err := io.Copy(io.Discard, r)
	return s, err
}
