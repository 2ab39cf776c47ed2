package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// readyTimeout bounds the agent's call to the host, which listens since before
// the VM was started.
const readyTimeout = 2 * time.Minute

// console prints lines for people on the VM's console.
type console struct {
	mu sync.Mutex
	w  io.Writer
}

func (c *console) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.w, "micropod-agent: "+format+"\n", args...)
}

// contain keeps a panic in f from ending PID 1, which would be a kernel panic.
func (c *console) contain(what string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			c.printf("panic in %s: %v\n%s", what, v, debug.Stack())
		}
	}()
	f()
}

// agent is the state of PID 1.
type agent struct {
	log    *console
	reaper *reaper
	bpf    bpfCall
	done   chan struct{} // closed when the guest is to leave
	once   sync.Once

	mu    sync.Mutex
	token string // "" until set up
	state setupState
	procs map[string]*process
	slots map[string]*stdio
	files map[*fileCall]struct{} // operations in progress
	roots map[string]*root       // by their container
	// leaving says that no more of them may begin.
	leaving bool

	disks disks
	nics  hostNICs
}

func newAgent(log *console, r *reaper) *agent {
	return &agent{
		log: log, reaper: r, bpf: bpf, done: make(chan struct{}),
		procs: make(map[string]*process), slots: make(map[string]*stdio), files: make(map[*fileCall]struct{}),
		roots: make(map[string]*root),
		disks: disks{mods: &modules{}, all: make(map[string]*disk)}, nics: hostNICs{modules: &modules{}},
	}
}

// quit makes agentMain leave. Idempotent.
func (a *agent) quit() { a.once.Do(func() { close(a.done) }) }

// agentMain is PID 1 from its first to its last moment.
func agentMain() {
	log := &console{w: os.Stderr}
	log.contain("agent", func() {
		if err := runAgent(log); err != nil {
			log.printf("fatal: %v; rebooting", err)
		}
	})
	for { // a reboot that fails leaves nothing better to do than to retry
		leave()
		log.printf("fatal: reboot failed")
		time.Sleep(time.Second)
	}
}

func runAgent(log *console) error {
	var p phases
	p.mark("init")
	if runtime.NumCPU() == 1 {
		// Else a goroutine that waits in a system call, for the end of a process
		// say, holds up the answer to the host until the runtime notices.
		runtime.GOMAXPROCS(2)
	}
	ch, mods, err := boot(log, &p)
	if err != nil {
		return err
	}
	p.mark("channel")
	a := newAgent(log, newReaper(true))
	a.disks.mods, a.nics.modules = mods, mods
	l, err := ch.listen(api.AgentPort)
	if err != nil {
		return err
	}
	go log.contain("accept", func() { a.accept(l) })
	go log.contain("control", func() {
		err := a.callHost(ch, p)
		// The supervisor is gone, or has asked for it: no reason to stay.
		if !errors.Is(err, io.EOF) {
			log.printf("control connection: %v", err)
		}
		a.quit()
	})
	<-a.done
	a.stopAll()
	return nil
}

// callHost serves the host on a connection that the agent makes, and says why it
// ended. It makes another one where the first was reset before the host had said
// anything: that is where the guest of a template goes on, whose host was nobody.
func (a *agent) callHost(ch channel, p phases) error {
	go a.stayAwake()
	for {
		conn, err := dialHost(ch)
		if err != nil {
			return fmt.Errorf("call the host: %w", err)
		}
		err = a.greetHost(conn, p)
		conn.Close()
		if !a.untouched() || !wasReset(err) {
			return err
		}
	}
}

func dialHost(ch channel) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	return ch.dialHost(ctx, api.ReadyPort)
}

func (a *agent) greetHost(conn net.Conn, p phases) error {
	p = slices.Clone(p)
	p.mark("connected")
	if err := api.WriteMessage(conn, api.KindHello, hello(p)); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	return a.serveControl(&control{conn: conn})
}

// stayAwake has a timer of the kernel go off all the time until the host has
// spoken. Some VMMs let a guest that goes on from a template find its clock ahead,
// but not the timer of its CPU: until that one goes off, no other timer does, nor
// is it set to an earlier time.
func (a *agent) stayAwake() {
	for a.untouched() {
		time.Sleep(time.Millisecond)
	}
}

// untouched reports that nothing has been asked of the guest.
func (a *agent) untouched() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state == notSetUp
}

// wasReset reports that a VMM has ended a connection, as it does with all of them
// when it writes a snapshot. Before the agent knows it, its socket is merely not
// connected.
func wasReset(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EPIPE)
}

func hello(p phases) api.Hello {
	return api.Hello{Version: api.Version, Kernel: kernelRelease(), Phases: p}
}

// boot brings the guest from the kernel's first process to an open channel. The
// modules are those that are still to come.
func boot(log *console, p *phases) (channel, *modules, error) {
	events, err := openUevents()
	if err != nil {
		return nil, nil, err
	}
	defer events.close()
	mods, err := openModules()
	if err != nil {
		return nil, nil, err
	}
	if err := loadModules(moduleDir); err != nil {
		log.printf("%v", err) // the device that needs it will be missing by name
	}
	p.mark("modules")
	if err := switchRoot(); err != nil {
		return nil, nil, err
	}
	for _, m := range bootMounts() {
		if err := m.mount(); err != nil {
			return nil, nil, err
		}
	}
	p.mark("mounts")
	// A kernel panic must end the VM too, whatever the command line says.
	if err := os.WriteFile("/proc/sys/kernel/panic", []byte("-1"), 0); err != nil {
		log.printf("%v", err)
	}
	// What a system manager gives to its services; the kernel's own is 4096.
	files := syscall.Rlimit{Cur: 65536, Max: 524288}
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		log.printf("set limit of open files: %v", err)
	}
	if err := enableControllers(cgroupDir); err != nil {
		log.printf("%v", err)
	}
	if err := loopbackUp(); err != nil {
		return nil, nil, err
	}
	ch, err := connect(events, mods, log)
	return ch, mods, err
}

// connect loads the rest of the modules and finds the channel. No driver may look
// at what differs from VM to VM before the host has spoken: see waitHost, and
// agent.setup.
func connect(events uevents, mods *modules, log *console) (channel, error) {
	load := func(dir string) {
		if err := mods.load(dir); err != nil {
			log.printf("%v", err)
		}
	}
	bus := virtioBus(busDir)
	if bus.has(deviceSerial) {
		load(serialModules)
	} else {
		load(vsockModules)
	}
	if err := bus.hold(); err != nil {
		return nil, err
	}
	load(lateModules)
	if bus.has(deviceNet) {
		load(netModules)
	}
	if err := mods.seal(); err != nil {
		return nil, err
	}
	return findChannel(events)
}

// leave ends the VM: a reboot is an exit under both VMMs (Firecracker: reboot=k,
// QEMU: -no-reboot). What is still mounted is synced.
//
// The first container's disk is the VM's own, and goes first. The hosts of the
// others' may answer no more: those have a while.
func leave() {
	firstPlace().putAway()
	others := make(chan struct{})
	go func() {
		defer close(others)
		further, _ := filepath.Glob(rootsDir + "/*")
		var all sync.WaitGroup
		for _, dir := range further {
			all.Go(placeIn(dir).putAway)
		}
		all.Wait()
		unix.Sync()
	}()
	select {
	case <-others:
	case <-time.After(stopTimeout):
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
