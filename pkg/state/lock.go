package state

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// FileLock is a lock on a file, exclusive but for HoldShared, held until Unlock or until every
// process that inherited its descriptor has ended. It is an open file
// description lock (fcntl(2), F_OFD_SETLK): it survives exec, and unlike
// flock it can be asked about without taking it.
type FileLock struct{ f *os.File }

// Lock waits for the lock of path and makes the file when it is missing.
func Lock(path string) (*FileLock, error) { return lock(path, unix.F_OFD_SETLKW) }

// TryLock is Lock, but gives an error wrapping ErrLocked instead of waiting.
func TryLock(path string) (*FileLock, error) { return lock(path, unix.F_OFD_SETLK) }

func lock(path string, cmd int) (*FileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
			return nil, fmt.Errorf("%w: %s is no file that can be locked", ErrDamaged, path)
		}
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		if err := setLock(f, cmd); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The file may have been removed while we waited: a lock on a name
		// that is gone excludes nobody.
		if SameFile(f, path) {
			return &FileLock{f}, nil
		}
		f.Close()
	}
}

// HoldShared takes a shared lock on a file that is there: Held is true of it, for
// as long as one of those who hold it does. The error wraps ErrLocked if somebody
// has it for himself.
func HoldShared(path string) (*FileLock, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open to hold: %w", err)
	}
	if err := setLockType(f, unix.F_OFD_SETLK, unix.F_RDLCK); err != nil {
		f.Close()
		return nil, fmt.Errorf("hold %s: %w", path, err)
	}
	return &FileLock{f}, nil
}

func setLock(f *os.File, cmd int) error { return setLockType(f, cmd, unix.F_WRLCK) }

func setLockType(f *os.File, cmd int, kind int16) error {
	for {
		lk := unix.Flock_t{Type: kind}
		err := unix.FcntlFlock(f.Fd(), cmd, &lk)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return ErrLocked
		}
		return err
	}
}

// SameFile reports whether f is what a path names now, without following a link.
func SameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// Inherited adopts the lock that a parent process left in f.
func Inherited(f *os.File) *FileLock { return &FileLock{f} }

// File is the descriptor to hand to a child, which then holds the lock too.
func (l *FileLock) File() *os.File { return l.f }

// Unlock gives the lock up, unless a child still holds its descriptor.
func (l *FileLock) Unlock() error { return l.f.Close() }

// Held reports whether some process holds the lock of path, without touching it.
func Held(path string) (bool, error) {
	f, err := os.Open(path)
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask lock: %w", err)
	}
	defer f.Close()
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk); err != nil {
		return false, fmt.Errorf("ask lock %s: %w", path, err)
	}
	return lk.Type != unix.F_UNLCK, nil
}
