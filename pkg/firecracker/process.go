package firecracker

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// process is a running VMM program.
type process struct {
	cmd *exec.Cmd
	// exited is closed once the program has ended and was waited for.
	exited chan struct{}
	// guard is where the VMM's guard reports, nil without one. Then cmd is the
	// guard.
	guard *guardLink
	// links are the sockets of its TAP devices, which outlast it.
	links []*os.File
}

// command is what to run. Its files are the only ones the program gets,
// besides /dev/null as its input.
type command struct {
	path   string
	args   []string
	stdout *os.File
	stderr *os.File
	// inherits are files from the descriptor 3 on; nil is none.
	inherits []*os.File
	// guard makes the program one, with namespaces of its own.
	guard  *guardLink
	cgroup *os.File // of version 2, where it begins; nil for our own
	// unprivileged is a guard that becomes the VMM itself, in a user namespace.
	unprivileged bool
	// taps are devices that the program is to find in a network namespace of its own, if
	// there are any. A guard makes them itself.
	taps []tap
}

// ownUser gives the program a user namespace, in which it is who we are, and
// what it takes there to make network devices. Root can make them anyway.
func ownUser(a *syscall.SysProcAttr) {
	if os.Geteuid() == 0 {
		return
	}
	a.Cloneflags |= unix.CLONE_NEWUSER
	uid, gid := os.Geteuid(), os.Getegid()
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	a.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
}

// startProcess runs c in its own session, in /, with no environment, and with
// a umask that makes its sockets 0600. The kernel kills it when the calling
// process ends, however that happens.
//
// A program that changes its user, as a jailer does, loses that last property
// and needs a guard.
func startProcess(c command) (*process, error) {
	if err := vmm.CloseOnExec(); err != nil {
		return nil, err
	}
	cmd := exec.Command(c.path, c.args...)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = c.stdout, c.stderr, c.inherits
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	if c.guard != nil {
		// A network with nothing in it keeps the VMM from the host's abstract
		// sockets and from what listens on its loopback.
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
		if c.unprivileged {
			ownUser(cmd.SysProcAttr)
		} else {
			cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
			// This one makes all mounts private as well.
			cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
		}
		if c.cgroup != nil {
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(c.cgroup.Fd())
		}
		// The guard sleeps for all its life.
		cmd.Env = []string{"GOMAXPROCS=1"}
	}
	p := &process{cmd: cmd, exited: make(chan struct{}), guard: c.guard}
	started := make(chan error)
	go p.run(c.taps, started)
	if err := <-started; err != nil {
		p.closeLinks()
		return nil, err
	}
	if c.guard != nil && !c.unprivileged {
		return p, nil // it does the rest
	}
	// A core file would hold the guest's memory.
	none := unix.Rlimit{}
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CORE, &none, nil); err != nil && err != unix.ESRCH {
		p.kill()
		p.closeLinks()
		return nil, fmt.Errorf("limit core files: %w", err)
	}
	return p, nil
}

// run starts the program and waits for it, on a thread of its own: the parent
// death signal comes when the thread ends that made the child, not the process
// (prctl(2), PR_SET_PDEATHSIG). The thread is never unlocked, so the runtime
// ends it together with this goroutine.
func (p *process) run(taps []tap, started chan<- error) {
	runtime.LockOSThread()
	// The umask belongs to the process unless the thread leaves the shared
	// state. Some sandboxes forbid that; the directories are 0700 all the same,
	// and the driver tightens the sockets once more when they exist.
	if unix.Unshare(unix.CLONE_FS) == nil {
		unix.Umask(0o177)
	}
	err := p.makeNetwork(taps)
	if err == nil {
		err = p.cmd.Start()
	}
	started <- err
	if err != nil {
		return
	}
	// The outcome is in cmd.ProcessState; there is no output to copy.
	_ = p.cmd.Wait()
	if p.guard != nil {
		p.guard.finish()
	}
	close(p.exited)
}

// makeNetwork takes the calling thread, and what it starts, to a network namespace with
// nothing but the devices in it.
func (p *process) makeNetwork(taps []tap) error {
	if len(taps) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	fds, err := makeTaps(taps)
	for _, fd := range fds {
		p.links = append(p.links, os.NewFile(uintptr(fd), "link"))
	}
	return err
}

// closeLinks ends the host's side of the NICs.
func (p *process) closeLinks() { closeFiles(p.links) }

// pid is the VMM's, not the guard's.
func (p *process) pid() int {
	if p.guard != nil {
		return p.guard.pid
	}
	return p.cmd.Process.Pid
}

// kill ends the program and returns when it was waited for. Idempotent.
func (p *process) kill() {
	// The only error is that it has ended already.
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// state tells how the VMM ended; false before that.
func (p *process) state() (syscall.WaitStatus, bool) {
	select {
	case <-p.exited:
	default:
		return 0, false
	}
	// A guard that was killed, and the VMM with it, has told nothing.
	if p.guard != nil && p.guard.ended != nil {
		return *p.guard.ended, true
	}
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status, true
}
