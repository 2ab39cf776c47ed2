package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
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
	done   chan struct{} // closed when the guest is to leave
	once   sync.Once

	mu    sync.Mutex
	token string // "" until set up
	state setupState
	procs map[string]*process
	slots map[string]*stdio
	files map[*fileCall]struct{} // operations in progress
	// leaving says that no more of them may begin.
	leaving bool
}

func newAgent(log *console, r *reaper) *agent {
	return &agent{
		log: log, reaper: r, done: make(chan struct{}),
		procs: make(map[string]*process), slots: make(map[string]*stdio), files: make(map[*fileCall]struct{}),
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
	ch, err := boot(log, &p)
	if err != nil {
		return err
	}
	p.mark("channel")
	a := newAgent(log, newReaper(true))
	l, err := ch.listen(api.AgentPort)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	conn, err := ch.dialHost(ctx, api.ReadyPort)
	if err != nil {
		return fmt.Errorf("call the host: %w", err)
	}
	p.mark("connected")
	if err := api.WriteMessage(conn, api.KindHello, hello(p)); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	go log.contain("accept", func() { a.accept(l) })
	go log.contain("control", func() {
		err := a.serveControl(&control{conn: conn})
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

func hello(p phases) api.Hello {
	return api.Hello{Version: api.Version, Kernel: kernelRelease(), Phases: p}
}

// boot brings the guest from the kernel's first process to an open channel.
func boot(log *console, p *phases) (channel, error) {
	events, err := openUevents()
	if err != nil {
		return nil, err
	}
	defer events.close()
	mods, err := openModules()
	if err != nil {
		return nil, err
	}
	if err := loadModules(moduleDir); err != nil {
		log.printf("%v", err) // the device that needs it will be missing by name
	}
	p.mark("modules")
	if err := switchRoot(); err != nil {
		return nil, err
	}
	for _, m := range bootMounts() {
		if err := m.mount(); err != nil {
			return nil, err
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
		return nil, err
	}
	return connect(events, mods, log)
}

// connect loads the rest of the modules and waits for the host. What comes last
// differs from VM to VM, see waitHost.
func connect(events uevents, mods *modules, log *console) (channel, error) {
	load := func(dir string) {
		if err := mods.load(dir); err != nil {
			log.printf("%v", err)
		}
	}
	bus := virtioBus("/sys/bus/virtio")
	serial := bus.has(deviceSerial)
	if serial {
		load(serialModules)
		if err := bus.hold(); err != nil {
			return nil, err
		}
	} else {
		load(vsockModules)
	}
	load(lateModules)
	if bus.has(deviceNet) {
		load(netModules)
	}
	if err := mods.seal(); err != nil {
		return nil, err
	}
	ch, err := findChannel(events)
	if err != nil || !serial {
		return ch, err
	}
	return ch, bus.release()
}

// leave ends the VM: a reboot is an exit under both VMMs (Firecracker: reboot=k,
// QEMU: -no-reboot). What is still mounted is synced.
func leave() {
	unix.Sync()
	for _, dir := range []string{rootDir, rwDir, imageDir} {
		_ = unix.Unmount(dir, 0) // busy or not mounted: synced all the same
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
