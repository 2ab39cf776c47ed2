package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// LockWithin is Lock for a lock that everybody has for a moment only: it waits no
// longer than limit. The error then wraps ErrLocked, and names the processes that
// have the lock. When ctx ends first, the error is its cause.
func LockWithin(ctx context.Context, path string, limit time.Duration) (*FileLock, error) {
	l, err := TryLock(path)
	if !errors.Is(err, ErrLocked) {
		return l, err
	}
	type result struct {
		lock *FileLock
		err  error
	}
	got, late := make(chan result), make(chan struct{})
	// It waits on, as nothing ends the wait in the kernel, and gives up what it gets
	// too late.
	go func() {
		l, err := Lock(path)
		select {
		case got <- result{l, err}:
		case <-late:
			if err == nil {
				l.Unlock()
			}
		}
	}()
	select {
	case r := <-got:
		return r.lock, r.err
	case <-ctx.Done():
		close(late)
		return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
	case <-time.After(limit):
		close(late)
		return nil, fmt.Errorf("lock %s: %w for %s: %s", path, ErrLocked, limit, strings.Join(holders(path), ", "))
	}
}

// holders are the processes that have the lock of path, as "process 1 (name)". The
// kernel does not say whose a lock is that belongs to an open file, but which open
// file has one (proc_pid_fdinfo(5)).
func holders(path string) []string {
	lock, err := os.Stat(path)
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	fds, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range fds {
		process := filepath.Dir(dir)
		if holds(process, lock) {
			name, _ := os.ReadFile(filepath.Join(process, "comm"))
			all = append(all, fmt.Sprintf("process %s (%s)", filepath.Base(process), bytes.TrimSpace(name)))
		}
	}
	if all == nil {
		all = []string{"by whom is not seen from here"}
	}
	return all
}

// holds reports whether a process, by its directory in /proc, has an open file with
// a lock.
func holds(process string, lock os.FileInfo) bool {
	files, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil {
		return false // it has ended, or is not ours to look at
	}
	for _, f := range files {
		fd := filepath.Join(process, "fd", f.Name())
		// Any other file may be on a file system that does not answer.
		if to, err := os.Readlink(fd); err != nil || filepath.Base(to) != lock.Name() {
			continue
		}
		open, err := os.Stat(fd)
		if err != nil || !os.SameFile(open, lock) {
			continue
		}
		about, err := os.ReadFile(filepath.Join(process, "fdinfo", f.Name()))
		if err == nil && bytes.Contains(about, []byte("\nlock:")) {
			return true
		}
	}
	return false
}
