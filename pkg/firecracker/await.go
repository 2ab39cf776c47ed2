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

const (
	// looking is the time between two looks that no event asks for.
	looking = 20 * time.Millisecond
	// busy is for how long a start has more urgent things to do than to give up a
	// watch: that takes a grace period of RCU, two ticks, and for one of them it
	// would keep a processor of the runtime.
	busy = time.Second
	// maxYields is how often waitReady makes way for a VMM between two of its calls.
	maxYields = 100
)

// waitReady returns when the API answers, or the process has ended.
func (m *machine) waitReady(ctx context.Context) error {
	m.api = NewClient(m.files.api)
	m.onEnd(m.api.Close)
	made, stop := watchDir(m.apiDir())
	m.onEnd(stop)
	defer time.AfterFunc(busy, stop)
	refused := 0
	for {
		v, err := m.askVersion(ctx)
		switch {
		case err == nil:
			m.log.Debug("firecracker answers", "version", v.String())
			return m.welcome(v)
		case errors.Is(err, unix.ECONNREFUSED) && refused < maxYields:
			refused++ // it is bound, and listening is the VMM's next call
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
		case <-time.After(looking):
		}
	}
}

// apiDir is where the VMM makes the socket of its API.
func (m *machine) apiDir() string {
	if m.jail != nil {
		return m.jail.root
	}
	return filepath.Dir(m.files.api)
}

// watchDir tells when something was made in a directory, by inotify(7): a sleep
// lasts a tick of the kernel, which is as long as all that a VMM does until then,
// and a thread that looks without sleeping keeps a loaded machine from the rest of
// this process. Where there are too many watches, made is nil and never tells.
// stop is idempotent.
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
	events := make(chan struct{}, 1)
	go tellEvents(f, events)
	return events, func() { f.Close() }
}

// tellEvents tells of events of a watch until it is closed. Several may be told
// as one.
func tellEvents(watch *os.File, events chan<- struct{}) {
	for b := make([]byte, 4096); ; {
		if _, err := watch.Read(b); err != nil {
			return
		}
		select {
		case events <- struct{}{}:
		default:
		}
	}
}
