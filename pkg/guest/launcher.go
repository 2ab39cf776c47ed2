package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// File descriptors of the container stage beyond its streams.
const (
	fdConfig = 3 // stageConfig, to its end
	fdStatus = 4 // stageStatus; closed by exec
	fdSocket = 5 // sends the terminal's master; an exec's stage waits for its end
	fdTarget = 6 // only of an exec: pidfd of the container's first process
)

// launcher holds the descriptors between the agent and a container stage.
type launcher struct {
	child []*os.File // 0 to fdSocket of the stage, or to fdTarget

	stdin, stdout, stderr  *os.File // our ends, nil with a terminal
	config, status, socket *os.File
}

// newLauncher opens everything that the stage inherits.
func newLauncher(r api.StartRequest) (_ *launcher, err error) {
	l := &launcher{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	l.child = []*os.File{null, null, null, nil, nil, nil}
	if !r.Spec.Process.Terminal {
		if r.Stdin {
			if l.child[0], l.stdin, err = newPipe(false); err != nil {
				return l, err
			}
		}
		if l.stdout, l.child[1], err = newPipe(true); err != nil {
			return l, err
		}
		if l.stderr, l.child[2], err = newPipe(true); err != nil {
			return l, err
		}
	}
	if l.child[fdConfig], l.config, err = newPipe(false); err != nil {
		return l, err
	}
	if l.status, l.child[fdStatus], err = newPipe(true); err != nil {
		return l, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return l, fmt.Errorf("socket pair: %w", err)
	}
	l.socket, l.child[fdSocket] = os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")
	return l, nil
}

// newPipe makes a pipe whose end on our side never blocks a thread, while the
// stage's end blocks as a program expects it.
func newPipe(weRead bool) (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	ours := p[1]
	if weRead {
		ours = p[0]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

// attr is how the stage starts: in namespaces of its own, but for the network,
// which is the VM's, and the cgroup namespace, which must begin in its cgroup.
// It is born in that cgroup (a directory, nil for our own): to move a process
// waits for an RCU grace period.
func (l *launcher) attr(cgroup *os.File) *syscall.ProcAttr {
	files := make([]uintptr, len(l.child))
	for i, f := range l.child {
		files[i] = f.Fd()
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   stageEnv(),
		Files: files,
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		},
	}
	if cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(cgroup.Fd())
	}
	return attr
}

// stageEnv keeps Go's scheduler from interrupting a stage by signals: a thread
// under the command's seccomp filter may be unable to return from one.
func stageEnv() []string { return []string{"GODEBUG=asyncpreemptoff=1"} }

// closeChild closes the stage's ends, so that its death shows.
func (l *launcher) closeChild() {
	for i, f := range l.child {
		if f != nil {
			f.Close()
		}
		l.child[i] = nil
	}
}

// close closes everything that has not been handed on.
func (l *launcher) close() {
	l.closeChild()
	for _, f := range []*os.File{l.stdin, l.stdout, l.stderr, l.config, l.status, l.socket} {
		if f != nil {
			f.Close()
		}
	}
}

// handshake sends the configuration and waits for the stage's answer. text is the
// request as JSON, if there is one: to encode it once more takes longer than all
// else here.
func (l *launcher) handshake(c stageConfig, text json.RawMessage) (stageStatus, error) {
	b, err := c.encode(text)
	if err != nil {
		return stageStatus{}, internal("stage", err)
	}
	// A stage that dies while it is written to shows as a missing answer.
	if _, err := l.config.Write(b); err != nil && !errors.Is(err, unix.EPIPE) {
		return stageStatus{}, internal("stage", err)
	}
	l.config.Close()
	status, err := readStatus(l.status)
	l.status.Close()
	return status, err
}

// encode is the request, then what the agent adds.
func (c stageConfig) encode(text json.RawMessage) ([]byte, error) {
	place, err := json.Marshal(c.stagePlace)
	if err == nil && text == nil {
		text, err = json.Marshal(c.StartRequest)
	}
	return slices.Concat(text, place), err
}

// read is the other end of encode.
func (c *stageConfig) read() error {
	f := os.NewFile(fdConfig, "config")
	defer f.Close()
	d := json.NewDecoder(io.LimitReader(f, 2*api.MaxControl))
	if err := d.Decode(&c.StartRequest); err != nil {
		return err
	}
	return d.Decode(&c.stagePlace)
}

// terminal receives the master from the stage and opens one more slave.
func (l *launcher) terminal() (master, peer *os.File, err error) {
	defer l.socket.Close()
	fd, err := receiveFile(int(l.socket.Fd()))
	if err != nil {
		return nil, nil, err
	}
	p, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("open terminal: %w", e)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), os.NewFile(p, "terminal"), nil
}

func sendFile(socket, fd int) error {
	return unix.Sendmsg(socket, []byte{0}, unix.UnixRights(fd), nil, 0)
}

func receiveFile(socket int) (int, error) {
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return -1, fmt.Errorf("receive terminal: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, errors.New("receive terminal: no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("receive terminal: no descriptor came")
	}
	return fds[0], nil
}
