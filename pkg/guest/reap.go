package guest

import (
	"encoding/json"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// reap is --init: this process stays PID 1 of the container, runs the command
// as its child, forwards signals to it and collects orphans. It ends with the
// command, and with it, by the kernel's hand, all of the pid namespace. It
// returns only if the child could not be started.
func (s *stage) reap() error {
	var config [2]int
	if err := unix.Pipe2(config[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	pid, err := syscall.ForkExec("/proc/self/exe", []string{stageName, "process"}, &syscall.ProcAttr{
		Env:   []string{},
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
	unix.Close(fdStatus)
	unix.Close(fdSocket)
	_ = unix.Prctl(unix.PR_SET_NAME, nameArg("micropod-init"), 0, 0, 0)
	w := os.NewFile(uintptr(config[1]), "config")
	_ = json.NewEncoder(w).Encode(s) // fails only if the child is dead, which shows below
	w.Close()
	go forward(signals, pid)
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || got == pid {
			code, _ := exitCode(ws)
			os.Exit(code)
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
