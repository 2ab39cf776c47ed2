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

	// With Exec: Config.Dir and the directory of the vsock socket, which
	// Firecracker inherits. The caller's names for them may lead through its
	// descriptors, where a process of another user namespace may not look.
	guardDir      = 4
	guardVsockDir = 5
)

// inherited is the name of a file in a directory that is a descriptor of the
// process that asks.
func inherited(fd int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name) }

// guardSpec is what a guard does, as its one argument.
type guardSpec struct {
	// Cgroups are the cgroup.procs files to enter, of version 1.
	Cgroups []string
	// Dir gets a mount of its own that allows devices and programs.
	Dir string
	// Binds are mounted in order.
	Binds []bind
	// Taps are made in the guard's network namespace.
	Taps []tap
	// Command is the jailer with its arguments; with Exec it is Firecracker, and
	// takes the guard's place instead of being its child.
	Command []string
	Exec    bool
	// Parent is the driver's process, with Exec.
	Parent int
}

// bind is a file that could not be linked into the jail.
type bind struct {
	Source, Target string
	ReadOnly       bool
}

// report is what a guard says: first that the command runs or why not, with the
// sockets of its TAP devices, then how it ended. With Exec the second one comes
// only of a command that cannot be executed. The command's pid comes as
// credentials, because the kernel translates those into the reader's pid
// namespace.
type report struct {
	Error  string             `json:",omitempty"`
	Errno  syscall.Errno      `json:",omitempty"` // what the error comes from
	Status syscall.WaitStatus `json:",omitempty"`
}

// maxReportText is what an error of a guard has at most, in bytes: as JSON it
// fits into what the driver reads.
const maxReportText = maxReport / 8

// maxReport is the size of a report.
const maxReport = 8 << 10

// RunGuard is the whole life of a guard, in a process that the driver started
// with Options.Guard and this one argument. It returns the exit code.
//
// A jailed Firecracker cannot be tied to its parent's death itself: the kernel
// forgets PR_SET_PDEATHSIG when a process changes its user. The guard stays
// root, dies with the driver's process, and is the init of the VM's pid
// namespace: the kernel ends everything in there with it. Its mounts are its
// own and vanish the same way.
//
// Without a jail a guard is needed for a network only. It lives in a user
// namespace, in which its devices are, and makes place for Firecracker.
func RunGuard(spec string) int {
	// The flag below belongs to the thread that forks.
	runtime.LockOSThread()
	unix.CloseOnExec(guardReport)
	s, err := parseGuardSpec(spec)
	if err != nil {
		return fail(err)
	}
	if s.Exec {
		return fail(s.replace())
	}
	unix.CloseOnExec(guardLease)
	pid, links, err := s.start()
	if err != nil {
		return fail(err)
	}
	// Who cannot be told is dead, and so are we at once.
	if err := sendReport(report{}, pid, links...); err != nil {
		return 1
	}
	closeAll(links)
	status := reapUntil(pid)
	if err := sendReport(report{Status: status}, os.Getpid()); err != nil {
		return 1
	}
	return 0
}

// fail tells the driver of an error.
func fail(err error) int {
	r := report{Error: oneLine(err.Error(), maxReportText)}
	errors.As(err, &r.Errno)
	_ = sendReport(r, os.Getpid())
	return 1
}

func parseGuardSpec(text string) (s guardSpec, err error) {
	if err := json.Unmarshal([]byte(text), &s); err != nil || len(s.Command) == 0 {
		return s, errors.New("not started by the firecracker driver")
	}
	return s, nil
}

// replace makes the devices and executes the command, which has none of the
// rights that it took to make them. It returns only an error.
func (s guardSpec) replace() error {
	links, err := makeTaps(s.Taps)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := sendReport(report{}, os.Getpid(), links...); err != nil {
		return err
	}
	if err := dieWith(s.Parent); err != nil {
		return err
	}
	return fmt.Errorf("start %s: %w", s.Command[0], syscall.Exec(s.Command[0], s.Command, []string{}))
}

// dieWith ties this thread, and what it executes, to its parent once more: the
// kernel forgets that where credentials change, as they do with a user
// namespace (prctl(2), PR_SET_PDEATHSIG).
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("be killed with the driver: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the driver has ended")
	}
	return nil
}

// start makes everything and runs the command; links are the devices' sockets.
func (s guardSpec) start() (pid int, links []int, err error) {
	for _, procs := range s.Cgroups {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return 0, nil, fmt.Errorf("enter cgroup: %w", err)
		}
	}
	if err := s.mount(); err != nil {
		return 0, nil, err
	}
	if links, err = makeTaps(s.Taps); err != nil {
		return 0, nil, err
	}
	// A core file would hold the guest's memory.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return 0, nil, fmt.Errorf("limit core files: %w", err)
	}
	// Firecracker sets it when it boots; from here on it holds before, too.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, nil, fmt.Errorf("set no-new-privileges: %w", err)
	}
	pid, err = syscall.ForkExec(s.Command[0], s.Command, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", s.Command[0], err)
	}
	return pid, links, nil
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

// sendReport sends r with a pid of the guard's namespace, and descriptors.
func sendReport(r report, pid int, fds ...int) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	oob := unix.UnixCredentials(&unix.Ucred{Pid: int32(pid), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())})
	if len(fds) > 0 {
		oob = append(oob, unix.UnixRights(fds...)...)
	}
	return unix.Sendmsg(guardReport, b, oob, nil, unix.MSG_NOSIGNAL)
}
