package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// stage is the program between the fork of a container and the exec of its
// command. It is PID 1 of the container, privileged, and runs before anything
// of the image does, so nothing races with it. The stage of an exec is another
// thing, see joining.
type stage struct {
	stageConfig
	Who identity // set by the user step; given to the second stage of --init

	files  map[string]int // path in the container -> detached mount of a guest's file
	Phases phases
}

// step is one line of what a stage does, in order. An error is reported as of
// the phase name, with the code unless it brings its own.
type step struct {
	name string
	code api.Code
	run  func() error
}

// stageMain runs a stage. It returns only if it did not execute the command.
func stageMain(args []string) int {
	runtime.LockOSThread() // namespaces, ids and capabilities are a thread's
	for fd := fdConfig; fd <= fdTarget; fd++ {
		unix.CloseOnExec(fd)
	}
	if len(args) == 2 && args[0] == "init" {
		return serveInit(args[1])
	}
	if len(args) != 1 {
		return 1
	}
	if args[0] == "files" {
		return filesMain()
	}
	var s stage
	var err error
	switch args[0] {
	case "container":
		if err = s.stageConfig.read(); err == nil {
			err = runSteps(s.container())
		}
	case "exec":
		if err = hide(); err == nil {
			err = s.stageConfig.read()
		}
		if err == nil {
			err = runSteps(s.joining())
		}
	case "process":
		if err = readConfig(&s); err == nil {
			err = runSteps(s.process())
		}
	}
	if err == nil && s.Init && args[0] == "container" {
		err = s.reap()
	}
	if err != nil {
		sendStatus(stageStatus{Error: asError(err)})
	}
	return 1
}

func readConfig(v any) error {
	f := os.NewFile(fdConfig, "config")
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 2*api.MaxControl))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// sendStatus answers the agent, which then waits for the exec to close the pipe:
// a signal that came before it would meet this program, not the command. The
// write is a raw one: it cannot block, and Go's runtime, which would have calls
// of its own around it, may be under a filter that does not allow them.
func sendStatus(s stageStatus) {
	if b, err := json.Marshal(s); err == nil {
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, fdStatus, uintptr(ptr(&b[0])), uintptr(len(b)))
	}
}

func runSteps(steps []step) error {
	for _, s := range steps {
		err := s.run()
		var e *api.Error
		switch {
		case err == nil:
		case errors.As(err, &e):
			e.Phase = s.name
			return e
		default:
			return &api.Error{Code: s.code, Phase: s.name, Message: err.Error()}
		}
	}
	return nil
}

// container is all that makes a container out of a process in new namespaces.
func (s *stage) container() []step {
	steps := []step{
		{"cgroup", api.CodeInternal, func() error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"hostname", api.CodeInvalid, s.setNames},
		{"root", api.CodeInternal, s.enterRoot},
		{"user", api.CodeInvalid, s.resolveUser},
		{"mount", api.CodeInvalid, s.mountAll},
		{"dev", api.CodeInternal, s.makeDevices},
		{"etc", api.CodeInternal, s.mountFiles},
		{"certificates", api.CodeInternal, s.linkBundle},
		{"sysctl", api.CodeInvalid, func() error { return writeSysctls("/proc/sys", s.Spec.Linux.Sysctl) }},
		{"tty", api.CodeInternal, s.openStreams},
		{"cwd", api.CodeInvalid, s.makeCwd},
		{"paths", api.CodeInternal, s.protectPaths},
		{"root", api.CodeInternal, s.protectRoot},
	}
	if s.Init {
		return steps
	}
	return append(steps, s.process()...)
}

// process turns this process into the container's command.
func (s *stage) process() []step {
	return []step{
		{"limits", api.CodeInvalid, s.setLimits},
		{"cwd", api.CodeInvalid, s.enterCwd},
		{"user", api.CodeInvalid, s.becomeUser},
		{"exec", api.CodeInternal, s.exec},
	}
}

func (s *stage) setNames() error {
	s.Phases.mark("stage")
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set hostname %q: %w", s.Hostname, err)
	}
	if s.Domainname == "" {
		return nil
	}
	if err := unix.Setdomainname([]byte(s.Domainname)); err != nil {
		return fmt.Errorf("set domain name %q: %w", s.Domainname, err)
	}
	return nil
}

// enterRoot makes the overlay the root and drops every other mount. From here
// on no path, and no link of the image, can lead anywhere else. The guest's
// files for /etc come along as detached mounts.
func (s *stage) enterRoot() error {
	if err := privateMounts(); err != nil {
		return err
	}
	s.files = make(map[string]int)
	for path, source := range s.Files {
		fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open %s: %w", source, err)
		}
		s.files[path] = fd
	}
	if err := pivot(s.Root); err != nil {
		return err
	}
	return fixRoot("/")
}

// privateMounts keeps what is mounted and unmounted from now on from the agent.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// pivot makes a directory the root of this mount namespace and drops all other
// mounts.
func pivot(root string) error {
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind root: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	// pivot_root(".", "."): the old root ends up over the new one, pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	return unix.Chdir("/")
}

func (s *stage) resolveUser() (err error) {
	root, err := openRoot("/")
	if err != nil {
		return err
	}
	defer root.close()
	s.Who, err = resolve(root, s.User, s.GroupAdd)
	return err
}

// openStreams connects 0, 1 and 2, and hands pipes and terminal to the user,
// who may reopen them through /dev/stdout.
func (s *stage) openStreams() error {
	switch {
	case s.Spec.Process.Terminal:
		return s.openTerminal()
	case !s.Stdin:
		// The container's own /dev/null, not the guest's.
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Dup3(fd, 0, 0); err != nil {
			return err
		}
		unix.Close(fd)
	case s.Stdin:
		if err := unix.Fchown(0, s.Who.UID, -1); err != nil {
			return err
		}
	}
	for fd := 1; fd <= 2; fd++ {
		if err := unix.Fchown(fd, s.Who.UID, -1); err != nil {
			return err
		}
	}
	return nil
}

// openTerminal makes a terminal in the container's own devpts its controlling
// terminal, and sends the master to the agent.
func (s *stage) openTerminal() error {
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/pts/ptmx: %w", err)
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock terminal: %w", err)
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return fmt.Errorf("name terminal: %w", err)
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	slave, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(slave)
	if err := s.fitTerminal(slave, path); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("take %s as controlling terminal: %w", path, err)
	}
	if err := bindConsole(path); err != nil {
		return err
	}
	return useTerminal(master, slave)
}

// fitTerminal gives a terminal, which errors call name, its owner and size.
func (s *stage) fitTerminal(slave int, name string) error {
	if err := unix.Fchown(slave, s.Who.UID, -1); err != nil {
		return fmt.Errorf("change owner of %s: %w", name, err)
	}
	size := s.Spec.Process.ConsoleSize
	if size == nil {
		return nil
	}
	ws := unix.Winsize{Col: uint16(min(size.Width, 65535)), Row: uint16(min(size.Height, 65535))}
	if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &ws); err != nil {
		return fmt.Errorf("set size of %s: %w", name, err)
	}
	return nil
}

// useTerminal makes a terminal 0, 1 and 2, and sends its master to the agent.
func useTerminal(master, slave int) error {
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return err
		}
	}
	return sendFile(fdSocket, master)
}

// makeCwd makes the working directory, root's and 0755, if it is missing.
func (s *stage) makeCwd() error {
	cwd := s.Spec.Process.Cwd
	if err := mkdirAll(cwd); err != nil {
		return fmt.Errorf("working directory %s: %w", cwd, err)
	}
	return nil
}

func (s *stage) enterCwd() error {
	cwd := s.Spec.Process.Cwd
	if err := unix.Chdir(cwd); err != nil {
		return fmt.Errorf("working directory %s: %w", cwd, err)
	}
	// A path through /proc could lead to a directory outside the root; then
	// the kernel has no path for it.
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:])
	if err != nil || n == 0 || buf[0] != '/' {
		return fmt.Errorf("working directory %s: outside of the container", cwd)
	}
	return nil
}

// exec executes the command. A failure before the kernel has looked into the
// file is the start's; after it the container has run, and ends with 255.
func (s *stage) exec() error {
	path, args, env, err := s.command()
	if err != nil {
		return err
	}
	runtime.Gosched() // a new time slice: from here on the scheduler is not wanted
	if err := installFilter(s.Seccomp); err != nil {
		return err
	}
	sendStatus(stageStatus{Phases: s.Phases})
	err = syscall.Exec(path, args, env)
	fmt.Fprintf(os.Stderr, "exec %s: %v\n", path, err)
	os.Exit(255)
	return nil
}

// command finds what to execute, and leaves it nothing but its streams.
func (s *stage) command() (path string, args, env []string, err error) {
	args, env = s.Spec.Process.Args, s.environ()
	if path, err = lookup(args[0], getenv(env, "PATH")); err != nil {
		return "", nil, nil, err
	}
	s.Phases.mark("exec")
	if err := closeOnExec(); err != nil {
		return "", nil, nil, err
	}
	unix.Umask(0o022)
	return path, args, env, nil
}

// closeOnExec marks every descriptor beyond the streams.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return nil // Linux < 5.11: all of ours are opened close-on-exec
	}
	return err
}
