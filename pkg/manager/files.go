package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// FileInfo describes a file of a container. It is what the guest says.
type FileInfo struct {
	Size  int64
	Mode  fs.FileMode
	MTime time.Time
	// LinkTarget of a symbolic link is an absolute path of the container.
	LinkTarget string
}

// Files are the files of one container. While it is open, a container that did
// not run when it was opened cannot be started: the start waits.
type Files struct {
	m         *Manager
	vm        state.VM
	config    *state.Config
	guest     guestAddress
	container string // whose mounts are seen; "" is the root file system alone
	end       func() error
	once      sync.Once
}

// OpenFiles reaches the files of a container: those of one that runs, paused or
// not, in its guest, with its mounts; those of another by a VM that is booted
// for this and starts nothing. Close it.
func (m *Manager) OpenFiles(ctx context.Context, ref string) (*Files, error) {
	vm, err := m.resolve(ref)
	if err != nil {
		return nil, err
	}
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return nil, err
	}
	f := &Files{m: m, vm: vm, config: c, end: func() error { return nil }}
	for {
		st, running, err := m.status(vm)
		if err != nil {
			return nil, err
		}
		if running && st != nil && st.Phase == state.PhaseRunning {
			f.container = vm.ID
			break
		}
		err = f.boot(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, state.ErrLocked) {
			return nil, err
		}
		if err := pause(ctx); err != nil { // on its way up
			return nil, err
		}
	}
	if f.guest, err = m.guest(vm); err != nil {
		return nil, errors.Join(err, f.end())
	}
	return f, nil
}

// boot boots a VM for the files. The error wraps state.ErrLocked if the
// container has been started meanwhile.
func (f *Files) boot(ctx context.Context) error {
	lock, err := f.m.lock(ctx, f.vm)
	if err != nil {
		return err
	}
	defer lock.Unlock() // the supervisor holds it on
	failpoint.Here(failpoint.FilesLocked)
	service, err := f.m.startService(ctx, lock, f.vm)
	if err != nil {
		return err
	}
	failpoint.Here(failpoint.FilesServed)
	f.end = func() error {
		// In every ending: what was written goes to the disk first.
		ctx := context.WithoutCancel(ctx)
		err := service.Close(ctx)
		if errors.Is(err, supervisor.ErrGone) {
			err = errors.Join(err, f.m.endLostService(ctx, f.vm))
		}
		if err != nil {
			return fmt.Errorf("end the VM that served the files of %s: %w", f.vm.Name, err)
		}
		return nil
	}
	return nil
}

// Name is the container's name.
func (f *Files) Name() string { return f.vm.Name }

// Close lets go of the container. Its error tells that what was written may be
// lost. Idempotent.
func (f *Files) Close() error {
	var err error
	f.once.Do(func() {
		err = f.end()
		f.guest.close()
	})
	return err
}

// Stat describes the file at a path, without following a link at its end, unless
// a slash or "/." comes after it.
func (f *Files) Stat(ctx context.Context, path string) (FileInfo, error) {
	r, err := f.open(ctx, api.FilesRequest{Op: api.FileStat, Container: f.container, Path: path})
	if err != nil {
		return FileInfo{}, err
	}
	defer r.Close()
	return fileInfo(r.Info), nil
}

// Archive gives the file at a path, or the directory and all that is in it, as a
// tar in which it has the last element of the path as its name.
func (f *Files) Archive(ctx context.Context, path string) (io.ReadCloser, FileInfo, error) {
	r, err := f.open(ctx, api.FilesRequest{Op: api.FileArchive, Container: f.container, Path: path})
	if err != nil {
		return nil, FileInfo{}, err
	}
	f.m.tellContainer(events.ActionArchivePath, f.vm)
	return r, fileInfo(r.Info), nil
}

// Extract puts the files of a tar, plain or compressed, into a directory of the
// container. They belong to whom the tar says, or to the container's user if
// asUser is set.
func (f *Files) Extract(ctx context.Context, path string, tar io.Reader, asUser bool) error {
	if f.config.ReadOnly {
		return fmt.Errorf("%w: container rootfs is marked read-only", ErrInvalid)
	}
	req := api.FilesRequest{Op: api.FileExtract, Container: f.container, Path: path}
	if asUser {
		req.User = f.config.User
	}
	w, err := f.open(ctx, req)
	if err != nil {
		return err
	}
	defer w.Close()
	src := &sourceReader{r: tar}
	err = w.Send(src)
	if cause := src.failure(); cause != nil {
		return cause
	}
	if err == nil {
		failpoint.Here(failpoint.FilesSent)
		f.m.tellContainer(events.ActionExtractToDir, f.vm)
	}
	return f.explain(err, path)
}

// sourceReader opens what may be compressed at the first Read, and remembers
// why reading failed.
type sourceReader struct {
	r     io.Reader
	plain io.Reader

	mu  sync.Mutex
	err error
}

func (s *sourceReader) Read(p []byte) (n int, err error) {
	if s.plain == nil {
		s.plain, err = image.Decompress(s.r)
	}
	if err == nil {
		n, err = s.plain.Read(p)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *sourceReader) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// open begins an operation of the guest.
func (f *Files) open(ctx context.Context, r api.FilesRequest) (*agent.Files, error) {
	if f.container != "" && shares(f.config.HostConfig) {
		r.Root = f.vm.ID // beside that of the VM's first container
	}
	files, err := agent.OpenFiles(ctx, f.guest.vsock, f.guest.token, r)
	return files, f.explain(err, r.Path)
}

// explain puts a guest's refusal into docker's words.
func (f *Files) explain(err error, path string) error {
	var refused *api.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return f.lost(err)
	case refused.Code == api.CodeNotFound:
		return &kindError{ErrNotFound, fmt.Errorf("could not find the file %s in container %s", path, f.vm.Name)}
	case refused.Code == api.CodeConflict:
		return notRunning(f.vm)
	}
	return refused
}

// lost is guestLost, where a container that does not run is nothing special.
func (f *Files) lost(err error) error {
	if f.container != "" && !errors.Is(err, context.Canceled) {
		return f.m.guestLost(f.vm, err)
	}
	return fmt.Errorf("reach the files of %s: %w", f.vm.Name, err)
}

func fileInfo(i api.FileInfo) FileInfo {
	mode := fs.FileMode(i.Mode & 0o777)
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	}
	for bit, m := range map[uint32]fs.FileMode{
		unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky,
	} {
		if i.Mode&bit != 0 {
			mode |= m
		}
	}
	return FileInfo{Size: i.Size, Mode: mode, MTime: i.MTime, LinkTarget: i.LinkTarget}
}
