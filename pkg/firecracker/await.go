package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// looking is how long lookFor looks, and longer than most VMMs need.
	looking = 20 * time.Millisecond
	// maxYields is how often waitReady makes way for a VMM between two of its calls.
	maxYields = 100
)

// waitReady returns when the API answers, or the process has ended.
func (m *machine) waitReady(ctx context.Context) error {
	m.api = NewClient(m.files.api)
	m.onEnd(m.api.Close)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	made, refused := lookFor(ctx, m.apiPath()), 0
	for {
		v, err := m.askVersion(ctx)
		switch {
		case err == nil:
			m.log.Debug("firecracker answers", "version", v.String())
			return m.welcome(v)
		case errors.Is(err, unix.ECONNREFUSED) && refused < maxYields:
			refused++ // it is bound, and listening is the VMM's next call
			yield()
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
			made = nil
		case <-time.After(looking):
		}
	}
}

// apiPath is where the VMM makes the socket of its API.
func (m *machine) apiPath() string {
	if m.jail != nil {
		return filepath.Join(m.jail.root, jailAPI)
	}
	return m.files.api
}

// lookFor tells when path appears, if that is soon: it closes made. It looks as
// often as it can, but only while no other thread wants the CPU. A sleep lasts a
// tick of the kernel, which is as long as all that the VMM does until then, and
// to give up a watch of inotify(7) takes a grace period of RCU, two ticks.
func lookFor(ctx context.Context, path string) <-chan struct{} {
	made := make(chan struct{})
	go func() {
		// Never unlocked: the thread ends with this goroutine, and takes its
		// scheduling class with it. Without the class it looks all the same.
		runtime.LockOSThread()
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		for begun := time.Now(); ctx.Err() == nil && time.Since(begun) < looking; yield() {
			if unix.Access(path, unix.F_OK) == nil {
				close(made)
				return
			}
		}
	}()
	return made
}

// yield lets other threads go first.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
