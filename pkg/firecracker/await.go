package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// waitReady returns when the API answers, or the process has ended.
func (m *machine) waitReady(ctx context.Context) error {
	m.api = NewClient(m.files.api)
	m.onEnd(m.api.Close)
	made, stop := watchDir(m.apiDir())
	defer stop()
	delay, refused := time.Millisecond, 0
	if made != nil {
		delay = longestDelay // the event comes first
	}
	for {
		v, err := m.askVersion(ctx)
		switch {
		case err == nil:
			m.log.Debug("firecracker answers", "version", v.String())
			return m.welcome(v)
		case errors.Is(err, unix.ECONNREFUSED) && refused < maxYields:
			// A socket that is bound and not listened on: that is the VMM's next
			// call, and it needs a CPU more than time.
			refused++
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			continue
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED):
			return err
		}
		select {
		case <-m.proc.exited:
			return fmt.Errorf("ended before it answered")
		case <-ctx.Done():
			return ctx.Err()
		case <-made:
		case <-time.After(delay):
			delay = min(2*delay, longestDelay)
		}
	}
}

const (
	// maxYields is how often waitReady makes way for a VMM between two of its calls.
	maxYields = 100
	// longestDelay is between two looks that no event asks for.
	longestDelay = 20 * time.Millisecond
)

// apiDir is where the VMM makes the socket of its API.
func (m *machine) apiDir() string {
	if m.jail != nil {
		return m.jail.root
	}
	return filepath.Dir(m.files.api)
}

// watchDir tells when something was made in a directory, by inotify(7). A sleep
// would do, but lasts a tick of the kernel at least; where there are too many
// watches, the caller's is all there is. stop ends it.
func watchDir(dir string) (made <-chan struct{}, stop func()) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
		f.Close()
		return nil, func() {}
	}
	ch := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buf := make([]byte, 4096); ; {
			if _, err := f.Read(buf); err != nil {
				return // closed
			}
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}()
	return ch, func() { f.Close(); <-ended }
}
