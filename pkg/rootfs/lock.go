package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
)

// errBusy is returned by a lock attempt that does not wait.
var errBusy = errors.New("locked by another process")

// lockPoll is how long a waiting locker sleeps between attempts. flock(2)
// cannot be interrupted from Go, so a wait that obeys a context must poll.
const lockPoll = 20 * time.Millisecond

// lock takes the exclusive flock of name, waiting until ctx ends. The holder
// may unlink the file: a lock counts only while its path still leads to it.
func (s *Store) lock(ctx context.Context, name string) (*os.File, error) {
	return s.waitLock(ctx, name, unix.LOCK_EX)
}

// lockShared is lock, shared with other readers.
func (s *Store) lockShared(ctx context.Context, name string) (*os.File, error) {
	return s.waitLock(ctx, name, unix.LOCK_SH)
}

func (s *Store) waitLock(ctx context.Context, name string, how int) (*os.File, error) {
	for {
		f, err := s.tryLock(name, how)
		if !errors.Is(err, errBusy) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock of %s: %w", name, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// tryLock takes a flock of name at once or returns errBusy.
func (s *Store) tryLock(name string, how int) (*os.File, error) {
	path := filepath.Join(s.dir, locksDir, name)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		current, err := flockCurrent(f, path, how)
		if current && err == nil {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// flockCurrent locks f without waiting and reports whether path still is f.
func flockCurrent(f *os.File, path string, how int) (bool, error) {
	if err := flock(f, how|unix.LOCK_NB); err != nil {
		return false, err
	}
	mine, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("stat lock: %w", err)
	}
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("stat lock: %w", err)
	}
	return os.SameFile(mine, now), nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errBusy
		default:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// workDir is a temporary directory whose flock its writer holds. When the
// writer dies the kernel releases the lock, and sweep removes the directory.
type workDir struct {
	path string
	lock *os.File
}

// newWorkDir makes an empty directory below tmp/.
func (s *Store) newWorkDir() (*workDir, error) {
	for {
		path, err := os.MkdirTemp(filepath.Join(s.dir, tmpDir), "w")
		if err != nil {
			return nil, fmt.Errorf("make work directory: %w", err)
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a sweeper came between mkdir and flock
		} else if err != nil {
			return nil, fmt.Errorf("open work directory: %w", err)
		}
		current, err := flockCurrent(f, path, unix.LOCK_EX)
		if current && err == nil {
			return &workDir{path: path, lock: f}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, errBusy) {
			return nil, err
		}
	}
}

func (w *workDir) file(name string) string { return filepath.Join(w.path, name) }

// discard removes the directory. It does nothing after publish.
func (w *workDir) discard() {
	if w.path != "" {
		os.RemoveAll(w.path)
	}
	w.lock.Close()
}

// publish makes the directory durable under its final name.
func (w *workDir) publish(to string, sync bool) error {
	if sync {
		if err := w.lock.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", w.path, err)
		}
	}
	failpoint.Here(failpoint.RootfsWritten)
	if err := os.Rename(w.path, to); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	failpoint.Here(failpoint.RootfsNamed)
	w.path = ""
	if !sync {
		return nil
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

// sweep removes the work directories of dead writers and returns the bytes
// that this freed.
func (s *Store) sweep() (int64, error) {
	tmp := filepath.Join(s.dir, tmpDir)
	names, err := os.ReadDir(tmp)
	if err != nil {
		return 0, fmt.Errorf("list work directories: %w", err)
	}
	var freed int64
	var errs []error
	for _, e := range names {
		n, err := sweepOne(filepath.Join(tmp, e.Name()))
		freed += n
		errs = append(errs, err)
	}
	return freed, errors.Join(errs...)
}

func sweepOne(path string) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	defer f.Close()
	current, err := flockCurrent(f, path, unix.LOCK_EX)
	if errors.Is(err, errBusy) || err == nil && !current {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	size, err := diskUsage(path)
	if err != nil {
		return 0, err
	}
	if err := os.RemoveAll(path); err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	return size, nil
}

// diskUsage returns the bytes that a directory of the store takes on disk.
func diskUsage(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return sum, nil
}
