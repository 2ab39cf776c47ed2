package guest

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// joining turns the stage of an exec into the parent of the exec's process.
//
// The container runs and is hostile. While the stage has privileges it is in
// none of the container's processes' sight: it joins all namespaces but that of
// pids, which only its child enters. The child is made when ids and capabilities
// are the container's already, and does nothing but execute the command. Before
// the stage touches a file of the container it is inside of its root, where no
// link leads out, and what it opens there it looks at through the descriptor.
func (s *stage) joining() []step {
	return []step{
		{"limits", api.CodeInvalid, s.setOOMScore},
		{"join", api.CodeInternal, joinNamespaces},
		{"user", api.CodeInvalid, s.resolveUser},
		{"tty", api.CodeInternal, s.openExecStreams},
		{"limits", api.CodeInvalid, s.setRlimits},
		{"cwd", api.CodeInvalid, s.enterExecCwd},
		{"user", api.CodeInvalid, s.becomeUser},
		{"exec", api.CodeInternal, s.spawn},
	}
}

// hide keeps processes with the same ids from reading this one, or writing to
// it: until its exec, the command shares this program's memory (vfork).
func hide() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// joinNamespaces enters the container's namespaces. Its root becomes the root
// and working directory. The pid namespace is for this thread's children only:
// a thread that is to have others in another one cannot make threads.
func joinNamespaces() error {
	// Threads share root and working directory, and a mount namespace is not
	// entered with shared ones.
	if err := everyThread(unix.SYS_UNSHARE, unix.CLONE_FS, 0); err != nil {
		return err
	}
	const spaces = unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	err := everyThread(unix.SYS_SETNS, fdTarget, spaces)
	if err == nil {
		err = unix.Setns(fdTarget, unix.CLONE_NEWPID)
	}
	if errors.Is(err, unix.ESRCH) {
		return &api.Error{Code: api.CodeConflict, Message: "the container has ended"}
	}
	if err != nil {
		return fmt.Errorf("join the container's namespaces: %w", err)
	}
	return unix.Close(fdTarget)
}

// everyThread makes a system call on all threads. Only this one goes on to be
// the command's, but the command shares memory with all of them until its exec:
// a container that may trace any process (CAP_SYS_PTRACE) must find no thread
// there that can do more than itself. With cgo, which the agent is not built
// with, there is no such call.
//
//go:uintptrescapes
func everyThread(trap, a1, a2 uintptr) error {
	_, _, e := syscall.AllThreadsSyscall(trap, a1, a2, 0)
	if e == unix.ENOTSUP {
		_, _, e = unix.RawSyscall(trap, a1, a2, 0)
	}
	if e != 0 {
		return e
	}
	return nil
}

// limitThreads leaves no thread more capabilities than the command has: not even
// the one that installed the filter. So the filter has to allow capset.
func (s *stage) limitThreads() error {
	caps, err := parseCapSets(s.Spec.Process.Capabilities)
	if err != nil {
		return err
	}
	hdr, data := caps.user()
	if err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0]))); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// openExecStreams is openStreams where nothing in /dev is what it was made.
func (s *stage) openExecStreams() error {
	if s.Spec.Process.Terminal {
		return s.openExecTerminal()
	}
	first := 0
	if !s.Stdin {
		null, err := openDevice("/dev/null", 1, 3)
		if err != nil {
			return err
		}
		if err := unix.Dup3(null, 0, 0); err != nil {
			return err
		}
		unix.Close(null)
		first = 1
	}
	for fd := first; fd <= 2; fd++ {
		if err := unix.Fchown(fd, s.Who.UID, -1); err != nil {
			return err
		}
	}
	return nil
}

// openExecTerminal makes a terminal in the container's own devpts and sends the
// master to the agent. The slave comes from the master: no path names it.
func (s *stage) openExecTerminal() error {
	master, err := openDevice("/dev/pts/ptmx", 5, 2)
	if err != nil {
		return err
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock terminal: %w", err)
	}
	p, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		return fmt.Errorf("open terminal: %w", e)
	}
	slave := int(p)
	defer unix.Close(slave)
	if err := s.fitTerminal(slave, "the terminal"); err != nil {
		return err
	}
	return useTerminal(master, slave)
}

// openDevice opens a character device of the container and makes sure that it
// is the one. Whatever else is there was the container's to open anyway.
func openDevice(name string, major, minor uint32) (int, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s of the container: %w", name, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(major, minor)) {
		err = fmt.Errorf("the container has something else at %s", name)
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// enterExecCwd enters the working directory. One that is not there is docker's
// 127; only a container's start makes it.
func (s *stage) enterExecCwd() error {
	err := s.enterCwd()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return &api.Error{Code: api.CodeNotFound, Message: err.Error()}
	}
	return err
}

// spawn starts the command in the container's pid namespace, tells the agent
// its pid, and returns no more. It does not wait for the command, which becomes
// the agent's child when this process ends.
func (s *stage) spawn() error {
	path, args, env, err := s.command()
	if err != nil {
		return err
	}
	if err := installFilter(s.Seccomp); err != nil { // the child inherits it
		return err
	}
	if err := s.limitThreads(); err != nil {
		return err
	}
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: env, Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: s.Spec.Process.Terminal, Ctty: 0},
	})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("start a process in the container: %w", err)
	}
	code := 0
	if err != nil {
		fmt.Fprintf(os.Stderr, "exec %s: %v\n", path, err)
		code = 255
	}
	sendStatus(stageStatus{Phases: s.Phases, PID: pid})
	unix.Close(fdStatus)
	// The pid is the command's as long as we live: the agent lets us go.
	_, _ = unix.Read(fdSocket, make([]byte, 1))
	os.Exit(code)
	return nil
}
