package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/archive"
)

// fileStage is the process of one operation on files. It is root and not in the
// container's sight, whose processes may change anything under its hands.
//
// What has a path is done with the container's root as its own: there the
// kernel leads no link, no ".." and no path of /proc out. It is not in the pid
// namespace of the container's /proc, which shows nothing of it.
type fileStage struct {
	fileConfig
	status *json.Encoder
}

// fileAction is an operation that is ready to begin.
type fileAction struct {
	info *api.FileInfo
	run  func() error
}

// filesMain runs the stage of an operation on files.
func filesMain() int {
	unix.Umask(0)
	f := fileStage{status: json.NewEncoder(os.NewFile(fdStatus, "status"))}
	if err := f.serve(); err != nil {
		_ = f.status.Encode(fileStatus{Error: fileError(err)})
		return 1
	}
	_ = f.status.Encode(fileStatus{})
	return 0
}

func (f *fileStage) serve() error {
	if err := readConfig(&f.fileConfig); err != nil {
		return err
	}
	if err := f.enter(); err != nil {
		return err
	}
	action, err := f.prepare()
	if err != nil {
		return err
	}
	if err := f.status.Encode(fileStatus{Info: action.info}); err != nil {
		return err
	}
	return action.run()
}

// fileError gives an error the code that the host needs to know.
func fileError(err error) *api.Error {
	var e *api.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		e = &api.Error{Code: api.CodeNotFound, Message: err.Error()}
	default:
		e = &api.Error{Code: api.CodeInvalid, Message: err.Error()}
	}
	return asError(e)
}

// enter makes the files that the operation is about this process's root.
func (f *fileStage) enter() error {
	if f.Joined {
		return joinMounts()
	}
	if err := privateMounts(); err != nil {
		return err
	}
	switch f.Op {
	case api.FileChanges, api.FileLayer:
		return nil // these compare the parts of the root file system
	}
	return pivot(f.Place.Root)
}

// joinMounts is joinNamespaces for mounts alone.
func joinMounts() error {
	if err := everyThread(unix.SYS_UNSHARE, unix.CLONE_FS, 0); err != nil {
		return err
	}
	err := everyThread(unix.SYS_SETNS, fdTarget, unix.CLONE_NEWNS)
	if errors.Is(err, unix.ESRCH) {
		return &api.Error{Code: api.CodeConflict, Message: "the container has ended"}
	}
	if err != nil {
		return fmt.Errorf("join the container's mounts: %w", err)
	}
	return unix.Close(fdTarget)
}

func (f *fileStage) prepare() (fileAction, error) {
	switch f.Op {
	case api.FileStat:
		info, err := statFile(f.Path)
		return fileAction{info, func() error { return nil }}, err
	case api.FileArchive:
		return f.archive()
	case api.FileExtract:
		return f.extract()
	case api.FileExport:
		return fileAction{run: exportRoot}, nil
	case api.FileChanges:
		return fileAction{run: f.listChanges}, nil
	case api.FileLayer:
		return fileAction{run: f.writeLayer}, nil
	}
	return fileAction{}, invalid("files", "unknown operation")
}

// statFile is stat(2) that does not follow the last element, unless a slash or a
// dot comes after it.
func statFile(p string) (*api.FileInfo, error) {
	if err := checkPlace(filepath.Dir(p)); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	info := &api.FileInfo{Size: st.Size, Mode: st.Mode, MTime: time.Unix(st.Mtim.Unix())}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return info, nil
	}
	target, err := filepath.EvalSymlinks(p)
	if err != nil { // it leads nowhere, or not yet
		if target, err = os.Readlink(p); err != nil {
			return nil, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(path.Clean(p)), target)
		}
	}
	info.LinkTarget = path.Clean(target)
	return info, nil
}

// checkPlace refuses a directory of the kernel's own file systems, as if it were
// not there: docker does not see them. What they show has no size and no end.
func checkPlace(dir string) error {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if ofKernel(d) {
		return &os.PathError{Op: "open", Path: dir, Err: fs.ErrNotExist}
	}
	return nil
}

// ofKernel reports whether a directory is of a file system that has no files but
// those that the kernel makes up, or of the /dev that a container is given.
func ofKernel(d *os.File) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		return true
	}
	const mqueue = 0x19800202
	return ofDev(d) || slices.Contains([]int64{
		unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC,
		unix.DEVPTS_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, mqueue,
	}, int64(st.Type))
}

// ofDev reports whether a directory is of the file system that is mounted at /dev.
func ofDev(d *os.File) bool {
	var here, dev, root unix.Stat_t
	return unix.Fstat(int(d.Fd()), &here) == nil && unix.Lstat("/dev", &dev) == nil && unix.Lstat("/", &root) == nil &&
		dev.Dev != root.Dev && here.Dev == dev.Dev
}

func notOfKernel(d *os.File) bool { return !ofKernel(d) }

// archive writes a file, or a directory and what is in it, under the name that
// its path ends in.
func (f *fileStage) archive() (fileAction, error) {
	info, err := statFile(f.Path)
	if err != nil {
		return fileAction{}, err
	}
	dir, name, err := archive.Open(f.Path)
	if err != nil {
		return fileAction{}, err
	}
	return fileAction{info, func() error {
		return writeArchive(func(w *archive.Writer) error { return w.Add(dir, name, archive.Base(f.Path)) })
	}}, nil
}

// writeArchive writes an archive to the host.
func writeArchive(fill func(*archive.Writer) error) error {
	out := newOutput()
	w := archive.NewWriter(out)
	w.Enter = notOfKernel
	if err := fill(w); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Flush()
}

func exportRoot() error {
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return writeArchive(func(w *archive.Writer) error { return w.AddContent(root) })
}

// extract puts the host's archive into a directory of the container.
func (f *fileStage) extract() (fileAction, error) {
	info, err := statFile(path.Clean(f.Path) + "/.")
	if errors.Is(err, unix.ENOTDIR) {
		return fileAction{}, invalid("", "extraction point is not a directory")
	}
	if err != nil {
		return fileAction{}, err
	}
	owner := func(uid, gid int) (int, int) { return uid, gid }
	if f.User != "" {
		who, err := f.owner()
		if err != nil {
			return fileAction{}, err
		}
		owner = func(int, int) (int, int) { return who.UID, who.GID }
	}
	root, err := os.OpenRoot(f.Path)
	if err != nil {
		return fileAction{}, err
	}
	return fileAction{info, func() error {
		return archive.Extract(os.Stdin, archive.Target{Root: root, Owner: owner, Devices: true, Merge: true, Xattrs: true})
	}}, nil
}

func (f *fileStage) owner() (identity, error) {
	root, err := openRoot("/")
	if err != nil {
		return identity{}, err
	}
	defer root.close()
	return resolve(root, f.User, nil)
}
