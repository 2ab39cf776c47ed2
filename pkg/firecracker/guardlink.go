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
		stdout: stdout, stderr: stderr, guarded: []*os.File{guardLease - 3: j.lease.file}, cgroup: cgroup,
	})
}

// startGuard runs a guard and returns when Firecracker is on its way. The
// guard's report gets the first place among the files of c.
func startGuard(ctx context.Context, guard []string, s guardSpec, c command) (*process, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	link, theirs, err := newGuardLink()
	if err != nil {
		return nil, fmt.Errorf("socket of the guard: %w", err)
	}
	argv := append(slices.Clone(guard), string(spec))
	c.path, c.args, c.guard = argv[0], argv[1:], link
	if len(c.guarded) == 0 {
		c.guarded = make([]*os.File, 1)
	}
	c.guarded[guardReport-3] = theirs
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
	r, pid, links, err := l.read()
	switch {
	case err != nil:
		l.first <- fmt.Errorf("the guard ended before firecracker started: %w", err)
		return
	case r.Error != "":
		l.first <- errors.New(r.Error)
		return
	}
	l.pid, l.links = pid, links
	l.first <- nil
	if r, _, _, err = l.read(); err == nil && r.Error == "" {
		l.ended = &r.Status
	}
}

// closeLinks ends the host's side of the NICs.
func (l *guardLink) closeLinks() {
	for _, f := range l.links {
		f.Close()
	}
}

// finish returns when the guard's last report was read; the guard has ended.
func (l *guardLink) finish() {
	_ = l.conn.SetReadDeadline(time.Now().Add(endTimeout))
	<-l.done
	l.conn.Close()
}

// read returns one report, with the pid and the descriptors that came with it.
func (l *guardLink) read() (r report, pid int, links []*os.File, err error) {
	b, oob := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*vmm.MaxNICs))
	n, oobn, _, _, err := l.conn.ReadMsgUnix(b, oob)
	if err == nil && n == 0 {
		err = errors.New("no report")
	}
	if err != nil {
		return r, 0, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return r, 0, nil, err
	}
	for i := range messages {
		switch m := &messages[i]; m.Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(m)
			if err != nil {
				return r, 0, links, err
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				links = append(links, os.NewFile(uintptr(fd), "link"))
			}
		case unix.SCM_CREDENTIALS:
			creds, err := unix.ParseUnixCredentials(m)
			if err != nil {
				return r, 0, links, err
			}
			pid = int(creds.Pid)
		}
	}
	if pid == 0 {
		return r, 0, links, errors.New("a report without credentials")
	}
	return r, pid, links, json.Unmarshal(b[:n], &r)
}
