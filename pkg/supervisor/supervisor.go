package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/network/peer"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// supervisor is the state of one VM's life. With a restart policy there is one
// for each start; what they share, next hands on.
type supervisor struct {
	plan    Plan
	paths   state.Paths
	store   *state.Store
	driver  vmm.Driver
	lock    *state.FileLock
	log     *slog.Logger
	journal *events.Journal

	asked  *asked        // for the end
	before *state.Status // how the start before ended, of one by the restart policy
	rest   time.Duration // before this start

	// Of a container in another one's VM:
	goneToken string // of the VM with which it has ended before, "" if that is there
	movedOut  bool
	turnedOut bool // it has ended with the VM

	held []*state.FileLock // what VMs are booted from, see holdBootFiles

	outcome *os.File // until the outcome is reported
	dir     *os.File // the container's directory, see shortPaths
	control string   // path of the control socket
	hub     *hub
	server  *server

	signalMu sync.Mutex // of a signal and of what is told of it
	told     bool       // the end is
	pauseMu  sync.Mutex // of a pause or its end, before statusMu
	statusMu sync.Mutex // from running on, and never while the guest is asked
	status   state.Status
	recorded bool // the end is in status
	handed   bool // the plan is the next one's, and so are changes of it
	pauses   int  // so far, with pauseMu

	// ctx ends when the VM is to be killed.
	ctx  context.Context
	kill context.CancelCauseFunc
	// booting ends with ctx, and when the VM's networks cannot be had.
	booting  context.Context
	stopBoot context.CancelCauseFunc

	keep atomic.Bool // whatever the plan says of AutoRemove

	listener *agent.Listener
	machine  vmm.Machine
	netMu    sync.Mutex                    // of a change of the next four, once the container runs
	nics     []*nic                        // the networks that the VM is in
	idle     []*nic                        // those that it has left, whose device is the VMM's
	peers    *peer.Server                  // nil without a network of driver user
	present  atomic.Pointer[[]network.NIC] // plans of nics
	agent    *agent.Client
	stdio    *agent.Stdio
	health   *monitor // nil: no checks

	running   chan struct{} // closed when agent and stdio may be used
	ended     chan struct{} // closed when the container's process has ended
	devices   chan struct{} // closed when the VM has its network devices
	joined    chan struct{} // closed when nobody works at the networks any more; nil before
	logClosed chan struct{} // closed when the log will not grow any more
}

// errKilled is the cause of ctx when somebody asked for the end.
var errKilled = errors.New("killed")

// Run is the whole life of the supervisor of container id, in a process that Spawn started. It
// returns when everything is freed.
func Run(store *state.Store, drivers []vmm.Driver, id string) error {
	in, err := inherit()
	if err == nil && in.plan.ID != id {
		err = fmt.Errorf("the plan is for %q", in.plan.ID)
	}
	if err != nil {
		return fmt.Errorf("inherit from the starting process: %w", err)
	}
	failpoint.Here(failpoint.SupervisorBorn)
	s, err := newSupervisor(store, in, drivers)
	if err != nil {
		report(in.outcome, Outcome{ExitCode: 125, Phase: "supervisor", Error: err.Error()})
		return err
	}
	defer s.dropBootFiles()
	failpoint.Here(failpoint.SupervisorListening)
	stop := s.onSignals()
	defer stop()
	if in.plan.Service {
		s.serveFiles(in.attached)
	} else {
		s.lives(in.attached)
	}
	return in.lock.Unlock()
}

// lives is one VM, and those that the restart policy wants after it.
func (s *supervisor) lives(attached net.Conn) {
	for ; s != nil; attached = nil {
		s = s.run(attached)
	}
}

// run lives, records the end and tells it to those who wait. The answer is what
// starts the container again, or nil.
func (s *supervisor) run(attached net.Conn) *supervisor {
	final := s.live(attached)
	next, err := s.restart(final)
	if next != nil {
		return next
	}
	if err != nil { // how it ended before stays true
		final.Error = againError(err)
		s.log.Error(final.Error)
	}
	s.server.close()
	s.settle(final)
	s.server.final(final)
	return nil
}

func newSupervisor(store *state.Store, in inherited, drivers []vmm.Driver) (*supervisor, error) {
	p := in.plan
	s := &supervisor{
		plan: p, store: store, paths: state.Paths{Dir: p.Dir}, lock: in.lock, outcome: in.outcome,
		log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level(p.Debug)})),
		asked: newAsked(),
	}
	var err error
	if s.journal, err = events.Open(store.Root()); err != nil {
		return nil, err
	}
	if err := s.shortPaths(); err != nil {
		return nil, err
	}
	for _, d := range drivers {
		if d.Name() == p.Driver.Name {
			s.driver = d
		}
	}
	if s.driver == nil {
		return nil, fmt.Errorf("no VMM driver is called %q", p.Driver.Name)
	}
	s.holdBootFiles()
	if p.Service {
		s.fresh()
		return s, nil
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	if s.server, err = s.serve(); err != nil {
		s.hub.log.Close()
		return nil, err
	}
	return s, nil
}

// holdBootFiles keeps the kernel and the initramfs from those who remove what is
// old or replaced: the restart policy boots from them again. Of a file that is not
// there the boot tells; one on a file system without locks is a user's own.
func (s *supervisor) holdBootFiles() {
	if s.plan.VMOf != nil {
		return // the VM's own supervisor does
	}
	for _, path := range []string{s.plan.VM.Kernel, s.plan.VM.Initrd} {
		l, err := state.HoldShared(path)
		if err != nil {
			s.log.Info("hold what the VM is booted from", "err", err)
			continue
		}
		s.held = append(s.held, l)
	}
}

func (s *supervisor) dropBootFiles() {
	for _, l := range s.held {
		l.Unlock()
	}
}

// record writes the status to where the next command finds it, should this
// process be lost.
func (s *supervisor) record() error {
	if s.plan.Service {
		return state.WriteService(s.paths, s.status)
	}
	return state.WriteStatus(s.paths, s.status)
}

// begin prepares what belongs to one VM of a container.
func (s *supervisor) begin() error {
	s.fresh()
	var err error
	s.hub, err = newHub(s.plan.Log, s.log, s.plan.Limits.Attached)
	return err
}

// fresh prepares what belongs to any VM.
func (s *supervisor) fresh() {
	s.running, s.ended, s.logClosed = make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.devices = make(chan struct{})
	s.present.Store(&[]network.NIC{})
	s.ctx, s.kill = context.WithCancelCause(context.Background())
	s.booting, s.stopBoot = context.WithCancelCause(s.ctx)
	s.status = state.Status{Phase: state.PhaseStarting}
	if s.before != nil {
		s.status = *s.before
	}
	s.status.Driver, s.status.Timings = s.plan.Driver, s.plan.Timings
	s.status.Supervisor = state.IdentifyProcess(os.Getpid())
	s.status.Disks, s.status.Networks, s.status.FromTemplate = nil, nil, false
	for _, d := range s.plan.VM.Disks {
		s.status.Disks = append(s.status.Disks, d.Path)
	}
}

// shortPaths names the sockets through a descriptor of their directory. A
// socket's path has at most 107 bytes (unix(7)), and a root may lie deep. The
// pid makes the names good in the VMM's process too.
func (s *supervisor) shortPaths() error {
	var err error
	if s.dir, err = os.Open(s.plan.Dir); err != nil {
		return fmt.Errorf("open container directory: %w", err)
	}
	short := s.short()
	s.plan.VM.VsockPath, s.plan.VM.Dir, s.control = short.Vsock(), short.VMM(), short.Control()
	return nil
}

func (s *supervisor) short() state.Paths {
	return state.Paths{Dir: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.dir.Fd())}
}

func level(debug bool) slog.Level {
	if debug {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// onSignals turns a termination signal into the end of the VM. A hangup is
// nothing: the terminal that started us may close.
func (s *supervisor) onSignals() (stop func()) {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT)
	go func() {
		for sig := range ch {
			s.log.Info("ending the VM", "signal", sig.String())
			if s.server == nil { // a VM that serves files
				s.kill(errKilled)
				continue
			}
			s.server.each(func(s *supervisor) {
				s.asked.set()
				s.kill(errKilled)
			})
		}
	}()
	return func() { signal.Stop(ch) }
}

// live is the main story: boot, start, run, end. When it returns the VM and
// all that belonged to it are gone.
func (s *supervisor) live(attached net.Conn) Final {
	if attached != nil {
		s.adopt(attached)
	}
	if err := s.record(); err != nil {
		return s.startFailed("state", err)
	}
	defer s.release()
	failpoint.Here(failpoint.SupervisorRecorded)
	if phase, err := s.runSteps(append(s.boot(), step{"start", s.startProcess})); err != nil {
		return s.startFailed(phase, err)
	}
	if err := s.started(); err != nil {
		return s.startFailed("state", err)
	}
	return s.runToEnd()
}

func (s *supervisor) report(o Outcome) {
	if s.outcome == nil {
		return
	}
	report(s.outcome, o)
	s.outcome = nil
}

// report writes the outcome. Whoever waited for it may be gone: the VM lives on.
func report(f *os.File, o Outcome) {
	json.NewEncoder(f).Encode(o)
	f.Close()
}
