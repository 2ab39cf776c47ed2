package guest

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper starts and waits for every child of this process. There is one, and
// os/exec is not used at all: PID 1 has to wait for whatever is re-parented to
// it, so two waiters would steal each other's statuses. A child is started and
// registered under the lock under which statuses are collected, so that a
// status can neither be missed nor belong to a reused pid.
type reaper struct {
	orphans bool // also collect children that are not ours: only for PID 1

	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
}

func newReaper(orphans bool) *reaper {
	r := &reaper{orphans: orphans, waiting: make(map[int]chan syscall.WaitStatus)}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGCHLD)
	go func() {
		for range ch {
			r.collect()
		}
	}()
	return r
}

// start executes a program; its wait status arrives on the channel once.
func (r *reaper) start(path string, argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	ch := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = ch
	return pid, ch, nil
}

// signal sends sig to a child that was started here and has not been waited
// for; else it is ESRCH.
func (r *reaper) signal(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return unix.ESRCH
	}
	return unix.Kill(pid, sig)
}

// pidfd opens a handle on a child that has not been waited for; else it is ESRCH.
func (r *reaper) pidfd(pid int) (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return nil, unix.ESRCH
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// adopt registers a child's child, which becomes ours when its parent ends.
// The parent must be alive and must not wait for it: then its pid is its own.
// Call settle once the parent has ended.
func (r *reaper) adopt(pid int) <-chan syscall.WaitStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = ch
	return ch
}

// settle makes sure that the status of an adopted process comes, also if the
// parent was killed before adopt and the process was collected as a stranger.
func (r *reaper) settle(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return
	}
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err == unix.ECHILD {
		r.waiting[pid] <- syscall.WaitStatus(unix.SIGKILL)
		delete(r.waiting, pid)
	}
}

// collect waits for everything that has ended.
func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.orphans {
		for pid := range r.waiting {
			r.wait(pid)
		}
		return
	}
	for r.wait(-1) {
	}
}

func (r *reaper) wait(pid int) bool {
	var ws syscall.WaitStatus
	got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || got <= 0 {
		return false
	}
	if ch, ok := r.waiting[got]; ok {
		delete(r.waiting, got)
		ch <- ws
	}
	return true
}

// exitCode is the code that docker shows: 128+n after a signal.
func exitCode(ws syscall.WaitStatus) (code, sig int) {
	if ws.Signaled() {
		return 128 + int(ws.Signal()), int(ws.Signal())
	}
	return ws.ExitStatus(), 0
}
