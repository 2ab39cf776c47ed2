package firecracker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors that a guard inherits beside its standard three.
const (
	guardReport = 3 // a socket, see sendReport
	guardLease  = 4 // of the jail's user id: held for as long as the guard lives
)

// guardSpec is what a guard does, as its one argument.
type guardSpec struct {
	// Cgroups are the cgroup.procs files to enter, of version 1.
	Cgroups []string
	// Dir gets a mount of its own that allows devices and programs.
	Dir string
	// Binds are mounted in order.
	Binds []bind
	// Command is the jailer with its arguments.
	Command []string
}

// bind is a file that could not be linked into the jail.
type bind struct {
	Source, Target string
	ReadOnly       bool
}

// report is what a guard says: first that the command runs or why not, then
// how it ended. The command's pid comes as credentials, because the kernel
// translates those into the reader's pid namespace.
type report struct {
	Error  string             `json:",omitempty"`
	Status syscall.WaitStatus `json:",omitempty"`
}

// RunGuard is the whole life of a guard, in a process that the driver started
// with Options.Guard and this one argument. It returns the exit code.
//
// A jailed Firecracker cannot be tied to its parent's death itself: the kernel
// forgets PR_SET_PDEATHSIG when a process changes its user. The guard stays
// root, dies with the driver's process, and is the init of the VM's pid
// namespace: the kernel ends everything in there with it. Its mounts are its
// own and vanish the same way.
func RunGuard(spec string) int {
	// The flag below belongs to the thread that forks.
	runtime.LockOSThread()
	unix.CloseOnExec(guardReport)
	unix.CloseOnExec(guardLease)
	pid, err := startGuarded(spec)
	if err != nil {
		_ = sendReport(report{Error: err.Error()}, os.Getpid())
		return 1
	}
	// Who cannot be told is dead, and so are we at once.
	if err := sendReport(report{}, pid); err != nil {
		return 1
	}
	status := reapUntil(pid)
	if err := sendReport(report{Status: status}, os.Getpid()); err != nil {
		return 1
	}
	return 0
}

func startGuarded(text string) (pid int, err error) {
	var s guardSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil || len(s.Command) == 0 {
		return 0, errors.New("not started by the firecracker driver")
	}
	for _, procs := range s.Cgroups {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return 0, fmt.Errorf("enter cgroup: %w", err)
		}
	}
	if err := s.mount(); err != nil {
		return 0, err
	}
	// A core file would hold the guest's memory.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return 0, fmt.Errorf("limit core files: %w", err)
	}
	// Firecracker sets it when it boots; from here on it holds before, too.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("set no-new-privileges: %w", err)
	}
	pid, err = syscall.ForkExec(s.Command[0], s.Command, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", s.Command[0], err)
	}
	return pid, nil
}

// mount makes the guard's mounts, in a namespace that the driver has made
// private.
func (s guardSpec) mount() error {
	// A root directory may lie on a file system without devices or programs,
	// such as a /tmp. Nobody but the jail gets there through this mount.
	if err := unix.Mount(s.Dir, s.Dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the jail on itself: %w", err)
	}
	if err := unix.Mount("", s.Dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("allow devices in the jail: %w", err)
	}
	for _, b := range s.Binds {
		if err := unix.Mount(b.Source, b.Target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", b.Source, err)
		}
		flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		if b.ReadOnly {
			flags |= unix.MS_RDONLY
		}
		if err := unix.Mount("", b.Target, "", flags, ""); err != nil {
			return fmt.Errorf("restrict the bind of %s: %w", b.Source, err)
		}
	}
	return nil
}

// reapUntil waits for the child, and as init for every orphan before it.
func reapUntil(child int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if pid == child || errors.Is(err, syscall.ECHILD) {
			return status
		}
	}
}

// sendReport sends r with a pid of the guard's namespace.
func sendReport(r report, pid int) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	creds := unix.UnixCredentials(&unix.Ucred{Pid: int32(pid)})
	return unix.Sendmsg(guardReport, b, creds, nil, unix.MSG_NOSIGNAL)
}
