package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	first chan error    // one value: nil once the VMM is on its way
	done  chan struct{} // closed when nothing more can come
	// pid is the VMM's, once first had nil.
	pid int
	// ended tells how the VMM ended, once done is closed; nil: nobody said.
	ended *syscall.WaitStatus
}

// start runs Firecracker in the jail and returns when it is on its way.
func (j *jail) start(ctx context.Context, c vmm.Config, args []string, stdout, stderr *os.File) (*process, error) {
	spec, err := json.Marshal(j.command(c, args))
	if err != nil {
		return nil, err
	}
	link, theirs, err := newGuardLink()
	if err != nil {
		return nil, fmt.Errorf("socket of the guard: %w", err)
	}
	cgroup, err := j.cgroups.birthplace()
	if err != nil {
		link.conn.Close()
		theirs.Close()
		return nil, fmt.Errorf("open the cgroup: %w", err)
	}
	argv := append(slices.Clone(j.guard), string(spec))
	p, err := startProcess(command{
		path: argv[0], args: argv[1:], stdout: stdout, stderr: stderr,
		guarded: []*os.File{guardReport - 3: theirs, guardLease - 3: j.lease.file}, guard: link, cgroup: cgroup,
	})
	theirs.Close()
	cgroup.Close() // nil is no harm
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
		return nil, err
	}
	return p, nil
}

func newGuardLink() (link *guardLink, theirs *os.File, err error) {
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
	return &guardLink{conn: conn.(*net.UnixConn), first: make(chan error, 1), done: make(chan struct{})}, theirs, nil
}

// listen reads both reports.
func (l *guardLink) listen() {
	defer close(l.done)
	r, pid, err := l.read()
	switch {
	case err != nil:
		l.first <- fmt.Errorf("the guard ended before firecracker started: %w", err)
		return
	case r.Error != "":
		l.first <- errors.New(r.Error)
		return
	}
	l.pid = pid
	l.first <- nil
	if r, _, err = l.read(); err == nil {
		l.ended = &r.Status
	}
}

// finish returns when the guard's last report was read; the guard has ended.
func (l *guardLink) finish() {
	_ = l.conn.SetReadDeadline(time.Now().Add(endTimeout))
	<-l.done
	l.conn.Close()
}

// read returns one report and the pid that came with it.
func (l *guardLink) read() (r report, pid int, err error) {
	b, oob := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, _, _, err := l.conn.ReadMsgUnix(b, oob)
	if err == nil && n == 0 {
		err = errors.New("no report")
	}
	if err != nil {
		return r, 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return r, 0, errors.Join(errors.New("a report without credentials"), err)
	}
	creds, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return r, 0, err
	}
	return r, int(creds.Pid), json.Unmarshal(b[:n], &r)
}
