package guest

import (
	"encoding/json"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// fdRelease holds up the command of an init until it is closed.
const fdRelease = 3

// reap is --init: this process stays PID 1 of the container, with the command as
// its child. The command may be able to trace it, so it must not have more
// rights: it executes this program again, with the command's ids, capabilities
// and filter. It returns only if that failed; the command has not begun then.
func (s *stage) reap() error {
	var config [2]int
	if err := unix.Pipe2(config[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{stageName, "process"}, &syscall.ProcAttr{
		Env:   stageEnv(),
		Files: []uintptr{0, 1, 2, uintptr(config[0]), fdStatus},
		Sys: &syscall.SysProcAttr{
			Setpgid:    true,
			Foreground: s.Spec.Process.Terminal,
			Ctty:       0,
		},
	})
	if err != nil {
		return err
	}
	unix.Close(config[0])
	w := os.NewFile(uintptr(config[1]), "config")
	// The child waits for the end of its configuration, which is when the init
	// is ready. A child that has died meanwhile shows there.
	_ = json.NewEncoder(w).Encode(s)
	return runSteps([]step{
		{"user", api.CodeInvalid, s.becomeUser},
		{"init", api.CodeInternal, func() error { return s.execInit(pid, w) }},
	})
}

// execInit executes the init for the child pid. It hands release on as fdRelease.
func (s *stage) execInit(pid int, release *os.File) error {
	if err := closeOnExec(); err != nil {
		return err
	}
	fd, err := unix.FcntlInt(release.Fd(), unix.F_DUPFD_CLOEXEC, fdSocket+1)
	if err != nil {
		return err
	}
	if err := unix.Dup3(fd, fdRelease, 0); err != nil {
		return err
	}
	if err := installFilter(s.Seccomp); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", []string{stageName, "init", strconv.Itoa(pid)}, []string{})
}

// serveInit is PID 1 of a container with --init: it forwards signals to the
// command and collects orphans. It ends with the command, and with it, by the
// kernel's hand, all of the pid namespace.
func serveInit(child string) int {
	pid, err := strconv.Atoi(child)
	if err != nil {
		return 1
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	_ = unix.Prctl(unix.PR_SET_NAME, nameArg("micropod-init"), 0, 0, 0)
	unix.Close(fdRelease)
	go forward(signals, pid)
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || got == pid {
			code, _ := exitCode(ws)
			return code
		}
	}
}

// forward hands signals on to the command. Not SIGCHLD, which is about our own
// children, nor SIGURG, which Go's runtime sends to itself.
func forward(signals <-chan os.Signal, pid int) {
	for sig := range signals {
		if s, ok := sig.(syscall.Signal); ok && s != unix.SIGCHLD && s != unix.SIGURG {
			_ = unix.Kill(pid, s)
		}
	}
}
