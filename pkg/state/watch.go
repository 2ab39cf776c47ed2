package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher tells that something may have changed: a container's record, or files.
type Watcher struct{ f *os.File }

// Watch begins to watch a container's record, and whether it is there at all.
// What changes from then on is not missed; look at the record after the call.
func (s *Store) Watch(id string) (*Watcher, error) {
	// A record is replaced by a rename, and so is its directory.
	return WatchDirs(unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_DELETE, filepath.Join(s.root, dirVMs), s.Paths(id).Dir)
}

// WatchDirs is Watch for what happens in directories: the events of inotify(7)
// in mask. One that is not there is left out.
func WatchDirs(mask uint32, dirs ...string) (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w := &Watcher{os.NewFile(uintptr(fd), "inotify")}
	for _, dir := range dirs {
		_, err := unix.InotifyAddWatch(fd, dir, mask)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			w.Close()
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return w, nil
}

// Next returns when something has changed since the last call, here or next to
// it, or ctx's error.
func (w *Watcher) Next(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })()
	_, err := w.f.Read(make([]byte, 64<<10))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	return nil
}

// Close ends the watch.
func (w *Watcher) Close() error { return w.f.Close() }
