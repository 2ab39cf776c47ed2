package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// guardLink is the driver's end of a guard's reports.
type guardLink struct {
	conn  *net.UnixConn
	spec  guardSpec
	first chan error    // one value: nil once the VMM is on its way
	done  chan struct{} // closed when nothing more can come
	// pid is the VMM's, and links are the sockets of its TAP devices, once
	// first had nil.
	pid   int
	links []*os.File
	// ended tells how the VMM ended, once done is closed; nil: nobody said.
	ended *syscall.WaitStatus
}

// start runs Firecracker in the jail and returns when it is on its way.
func (j *jail) start(ctx context.Context, c vmm.Config, args []string, stdout, stderr *os.File) (*process, error) {
	cgroup, err := j.cgroups.birthplace()
	if err != nil {
		return nil, fmt.Errorf("open the cgroup: %w", err)
	}
	defer cgroup.Close() // nil is no harm
	return startGuard(ctx, j.guard, j.command(c, args), command{
		stdout: stdout, stderr: stderr, inherits: []*os.File{guardLease - 3: j.lease.file}, cgroup: cgroup,
	})
}

// startGuard runs a guard and returns when Firecracker is on its way. The
// guard's report gets the first place among the files of c.
func startGuard(ctx context.Context, guard []string, s guardSpec, c command) (*process, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	link, theirs, err := newGuardLink(s)
	if err != nil {
		return nil, fmt.Errorf("socket of the guard: %w", err)
	}
	argv := append(slices.Clone(guard), string(spec))
	c.path, c.args, c.guard = argv[0], argv[1:], link
	if len(c.inherits) == 0 {
		c.inherits = make([]*os.File, 1)
	}
	c.inherits[guardReport-3] = theirs
	p, err := startProcess(c)
	theirs.Close()
	if err != nil {
		link.conn.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	go link.listen()
	select {
	case err = <-link.first:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.kill()
		link.closeLinks()
		return nil, err
	}
	p.links = link.links
	return p, nil
}

func newGuardLink(s guardSpec) (link *guardLink, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours := os.NewFile(uintptr(fds[0]), "guard")
	theirs = os.NewFile(uintptr(fds[1]), "guard")
	defer ours.Close()
	var conn net.Conn
	if err = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err == nil {
		conn, err = net.FileConn(ours) // a duplicate
	}
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return &guardLink{conn: conn.(*net.UnixConn), spec: s, first: make(chan error, 1), done: make(chan struct{})}, theirs, nil
}

// listen reads both reports.
func (l *guardLink) listen() {
	defer close(l.done)
	if err := l.begin(); err != nil {
		l.first <- err
		return
	}
	l.first <- nil
	if l.spec.Exec {
		return // Firecracker is the driver's own child
	}
	if m, err := l.read(); err == nil && m.report.Error == "" {
		l.ended = &m.report.Status
	}
}

// begin returns when the command runs, or cannot.
func (l *guardLink) begin() error {
	m, err := l.read()
	if err != nil {
		return fmt.Errorf("the guard ended before firecracker started: %w", err)
	}
	l.pid, l.links = m.pid, m.links
	if err := m.report.err(); err != nil {
		return err
	}
	if want := sockets(l.spec.Taps); len(l.links) != want {
		return fmt.Errorf("the guard sent %d sockets of network devices, not %d", len(l.links), want)
	}
	if !l.spec.Exec {
		return nil
	}
	// The report's socket ends with the execution, or tells why there is none.
	m, err = l.read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = m.report.err()
	}
	if err == nil {
		err = errors.New("the guard reports twice")
	}
	return err
}

// sockets is how many devices have a socket.
func sockets(taps []tap) int {
	n := 0
	for _, t := range taps {
		if !t.Device {
			n++
		}
	}
	return n
}

// closeLinks is process.closeLinks, where there is none.
func (l *guardLink) closeLinks() { closeFiles(l.links) }

// finish returns when the guard's last report was read; the guard has ended.
func (l *guardLink) finish() {
	_ = l.conn.SetReadDeadline(time.Now().Add(endTimeout))
	<-l.done
	l.conn.Close()
}

// message is a report with what came along.
type message struct {
	report report
	pid    int
	links  []*os.File
}

// read returns one report; io.EOF when none can come.
func (l *guardLink) read() (m message, err error) {
	b, oob := make([]byte, maxReport), make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*vmm.MaxNICs))
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return m, err
	}
	// First, so that no descriptor is lost.
	err = m.accept(oob[:oobn])
	switch {
	case err != nil:
	case n == 0:
		err = io.EOF
	case flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0:
		err = errors.New("a report that is too long")
	case m.pid == 0:
		err = errors.New("a report without credentials")
	default:
		err = json.Unmarshal(b[:n], &m.report)
	}
	if err != nil {
		closeFiles(m.links)
		m.links = nil
	}
	return m, err
}

// accept takes descriptors and credentials.
func (m *message) accept(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range messages {
		switch c := &messages[i]; c.Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(c)
			if err != nil {
				return err
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				m.links = append(m.links, os.NewFile(uintptr(fd), "link"))
			}
		case unix.SCM_CREDENTIALS:
			creds, err := unix.ParseUnixCredentials(c)
			if err != nil {
				return err
			}
			m.pid = int(creds.Pid)
		}
	}
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// guardError is what a guard said, and the error number behind it.
type guardError struct {
	text  string
	errno syscall.Errno
}

func (e *guardError) Error() string { return e.text }

// Unwrap is nil for an error that no number stands for.
func (e *guardError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

func (r report) err() error {
	if r.Error == "" {
		return nil
	}
	return &guardError{r.Error, r.Errno}
}
