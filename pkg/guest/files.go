package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// maxFileCalls bounds the operations on files that are in progress: each is a
// process of its own.
const maxFileCalls = 16

// fileConfig is what the stage of an operation on files is told.
type fileConfig struct {
	api.FilesRequest
	Joined bool // fdTarget is the container whose mounts are to be seen
	Place  rootPlace
}

// fileStatus is what the stage says first, when it is ready, and last. An error
// is its last word.
type fileStatus struct {
	Info  *api.FileInfo `json:"info,omitempty"`
	Error *api.Error    `json:"error,omitempty"`
}

// fileCall is one operation on files: a process that does it, and the connection
// that its bytes go over.
type fileCall struct {
	conn   net.Conn
	within *process // whose mounts it sees, nil for nobody's
	root   *root    // whose files it sees, nil for those of the guest's first container
	pid    int
	exited <-chan syscall.WaitStatus
	gone   chan struct{} // closed when the stage has been reaped
	in     *os.File      // to the stage's input
	out    *os.File
	status *json.Decoder
	closer io.Closer // of status
}

// serveFiles serves one connection of PurposeFiles.
func (a *agent) serveFiles(conn net.Conn, r *api.FilesRequest) {
	f, err := a.beginFiles(conn, r)
	if err == nil {
		err = f.relay(a)
	}
	_ = api.WriteMessage(conn, api.KindReply, api.Reply{Error: asError(err)})
}

func checkFiles(r *api.FilesRequest) error {
	if r == nil {
		return invalid("files", "no operation")
	}
	hasPath := false
	switch r.Op {
	case api.FileStat, api.FileArchive, api.FileExtract:
		hasPath = true
	case api.FileExport, api.FileChanges, api.FileLayer:
	default:
		return invalid("files", "unknown operation %q", api.Clean(string(r.Op), 64))
	}
	switch {
	case r.Root != "" && api.CheckID(r.Root) != nil:
		return invalid("files", "root file system of %q", api.Clean(r.Root, 128))
	case hasPath && (!path.IsAbs(r.Path) || len(r.Path) > api.MaxPath || strings.ContainsRune(r.Path, 0)):
		return invalid("files", "path %q", api.Clean(r.Path, 128))
	case !hasPath && (r.Path != "" || r.Container != ""):
		return invalid("files", "%s is for the whole root file system", r.Op)
	}
	return nil
}

// beginFiles starts the stage of an operation.
func (a *agent) beginFiles(conn net.Conn, r *api.FilesRequest) (*fileCall, error) {
	if err := checkFiles(r); err != nil {
		return nil, err
	}
	within, err := a.filesOf(r.Container)
	if err != nil {
		return nil, err
	}
	f := &fileCall{conn: conn, within: within, gone: make(chan struct{})}
	var undo cleanup
	defer undo.run()
	if f.root, err = a.enterRoot(r.Root); err != nil {
		return nil, err
	}
	undo.add(f.root.leave)
	child := make([]*os.File, fdTarget+1)
	defer func() { closeAll(child) }()
	undo.add(func() { closeAll([]*os.File{f.in, f.out}) })
	if err := f.pipes(child, &undo, fileConfig{*r, within != nil, f.root.placeOf()}); err != nil {
		return nil, internal("files", err)
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: stageEnv(), Sys: &syscall.SysProcAttr{Setsid: true}}
	if within == nil {
		child = child[:fdTarget]
		attr.Sys.Cloneflags = unix.CLONE_NEWNS
	} else if child[fdTarget], err = a.reaper.pidfd(within.pid); err != nil {
		return nil, notRunning(within.id)
	}
	attr.Files = inherited(child)
	if err := a.startFiles(f, attr); err != nil {
		return nil, err
	}
	undo.cancel()
	return f, nil
}

// filesOf finds the container whose mounts an operation sees; nil is none.
func (a *agent) filesOf(container string) (*process, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != setUp {
		return nil, invalid("files", "the guest is not set up")
	}
	if container == "" {
		return nil, nil
	}
	p := a.procs[container]
	if p == nil || !p.live || p.within != nil || p.life.Err() != nil {
		return nil, notRunning(api.Clean(container, api.MaxID))
	}
	return p, nil
}

// pipes makes the descriptors between the agent and the stage, and hands the
// configuration over: a pipe holds it, so nobody has to read it yet.
func (f *fileCall) pipes(child []*os.File, undo *cleanup, c fileConfig) (err error) {
	if child[0], f.in, err = newPipe(false); err != nil {
		return err
	}
	if f.out, child[1], err = newPipe(true); err != nil {
		return err
	}
	var config, status *os.File
	if child[fdConfig], config, err = newPipe(false); err != nil {
		return err
	}
	defer config.Close()
	if err := json.NewEncoder(config).Encode(c); err != nil {
		return err
	}
	if status, child[fdStatus], err = newPipe(true); err != nil {
		return err
	}
	undo.add(func() { status.Close() })
	f.status, f.closer = json.NewDecoder(io.LimitReader(status, 2*api.MaxReply)), status
	return nil
}

// inherited are the descriptors of a stage: its errors go where ours go, and one
// that it has no use for is closed.
func inherited(files []*os.File) []uintptr {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		switch {
		case f != nil:
			fds[i] = f.Fd()
		case i == 2:
			fds[i] = 2
		default:
			fds[i] = ^uintptr(0)
		}
	}
	return fds
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// startFiles starts the stage, if there is room for one more.
func (a *agent) startFiles(f *fileCall, attr *syscall.ProcAttr) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.files) >= maxFileCalls || a.leaving {
		return invalid("files", "%d operations on files are in progress: no more are possible", len(a.files))
	}
	if f.pid, f.exited, err = a.reaper.start("/proc/self/exe", []string{stageName, "files"}, attr); err != nil {
		return internal("fork", err)
	}
	a.files[f] = struct{}{}
	if f.root != nil && f.root.ending { // whoever ended it did not know the process yet
		_ = a.reaper.signal(f.pid, unix.SIGKILL)
	}
	return nil
}

// relay carries the bytes between the stage and the host, and returns the
// stage's last word once it has ended. A host that hangs up ends it.
func (f *fileCall) relay(a *agent) error {
	defer f.end(a)
	if f.within != nil {
		defer context.AfterFunc(f.within.life, func() { _ = a.reaper.signal(f.pid, unix.SIGKILL) })()
	}
	first, err := f.next()
	if err != nil {
		return err
	}
	reply := api.Reply{}
	if first.Info != nil {
		if reply.Result, err = json.Marshal(first.Info); err != nil {
			return err
		}
	}
	if err := api.WriteMessage(f.conn, api.KindReply, reply); err != nil {
		return err
	}
	go a.log.contain("input of files", func() {
		f.input()
		f.in.Close()
	})
	if err := f.output(); err != nil {
		return err
	}
	_, err = f.next()
	return err
}

// end ends the stage, if it has not ended by itself.
func (f *fileCall) end(a *agent) {
	_ = a.reaper.signal(f.pid, unix.SIGKILL)
	<-f.exited
	closeAll([]*os.File{f.in, f.out})
	f.closer.Close()
	a.mu.Lock()
	delete(a.files, f)
	a.mu.Unlock()
	f.root.leave()
	close(f.gone)
}

// next reads one status of the stage.
func (f *fileCall) next() (fileStatus, error) {
	var s fileStatus
	err := f.status.Decode(&s)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return s, internal("files", errors.New("the operation was ended: the container has stopped, or the guest is out of memory"))
	case err != nil:
		return s, internal("files", err)
	case s.Error != nil:
		return s, s.Error
	}
	return s, nil
}

// input carries what the host sends. Its end by an empty frame is the stage's
// end of input; any other end is the end of the stage.
func (f *fileCall) input() {
	buf := make([]byte, api.MaxData)
	for {
		k, b, err := api.ReadFrame(f.conn, buf)
		if err != nil || k != api.KindStdin {
			// The stage may wait for no input at all.
			_ = f.out.SetReadDeadline(time.Unix(1, 0))
			return
		}
		if len(b) == 0 {
			f.in.Close()
			continue
		}
		// One that does not read on has a last word, which is on its way.
		_, _ = f.in.Write(b)
	}
}

// output carries what the stage gives until its end.
func (f *fileCall) output() error {
	buf := make([]byte, api.MaxData)
	for {
		n, err := f.out.Read(buf)
		if n > 0 {
			if err := api.WriteFrame(f.conn, api.KindStdout, buf[:n]); err != nil {
				return fmt.Errorf("send a file's bytes: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the host has hung up: %w", err)
		}
	}
}
