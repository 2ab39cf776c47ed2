package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// machine is one VM, from the start's first step on.
type machine struct {
	config   vmm.Config
	files    files
	requests []Request
	binary   string
	log      *slog.Logger

	free    []func() // in the order of acquiring; called in reverse
	proc    *process
	api     *Client
	console *console
	said    *tail // Firecracker's log
	stderr  *tail
	killed  atomic.Bool

	exit vmm.Exit // written before done is closed
	done chan struct{}
}

var _ vmm.Machine = (*machine)(nil)

// PID is Firecracker's process id.
func (m *machine) PID() int { return m.proc.pid() }

// Done is closed once everything is freed.
func (m *machine) Done() <-chan struct{} { return m.done }

// Exit is valid after Done.
func (m *machine) Exit() vmm.Exit {
	select {
	case <-m.done:
		return m.exit
	default:
		return vmm.Exit{}
	}
}

// Kill ends the VM at once.
func (m *machine) Kill() error {
	if m.proc.state() == nil {
		m.killed.Store(true)
	}
	m.proc.kill()
	<-m.done
	return nil
}

// watch waits for the VMM's end.
func (m *machine) watch() {
	<-m.proc.exited
	m.release()
	m.exit = m.outcome()
	m.log.Debug("firecracker ended", "code", m.exit.Code, "signal", m.exit.Signal, "reason", m.exit.Reason)
	close(m.done)
}

// abandon undoes a start that failed. No guest has run: the console is empty.
func (m *machine) abandon() {
	if m.proc != nil {
		m.proc.kill()
	}
	if m.console != nil {
		m.removeAtEnd(m.config.ConsolePath)
	}
	m.release()
}

func (m *machine) release() {
	for i := len(m.free) - 1; i >= 0; i-- {
		m.free[i]()
	}
	m.free = nil
}

// onEnd registers what to free when the VMM has ended.
func (m *machine) onEnd(f func()) { m.free = append(m.free, f) }

// removeAtEnd registers a file of ours.
func (m *machine) removeAtEnd(path string) {
	m.onEnd(func() {
		if err := remove(path); err != nil {
			m.log.Warn("firecracker left a file", "err", err)
		}
	})
}

func (m *machine) clearSockets(context.Context) error {
	for _, path := range []string{m.files.api, m.config.VsockPath} {
		if err := removeStaleSocket(path); err != nil {
			return err
		}
		m.removeAtEnd(path)
	}
	return nil
}

func (m *machine) openConsole(context.Context) error {
	c, err := openConsole(m.config.ConsolePath, m.config.ConsoleLimit)
	if err != nil {
		return err
	}
	m.console = c
	m.onEnd(func() {
		c.lines.flush()
		if c.dropped > 0 {
			m.log.Warn("console output dropped", "bytes", c.dropped, "limit", m.config.ConsoleLimit)
		}
		c.file.Close()
	})
	return nil
}

// openLog makes the FIFO of Firecracker's log. Without one the log would go to
// stdout, into the console; a file could grow without bound. What the FIFO does
// not hold, Firecracker drops.
func (m *machine) openLog(context.Context) error {
	if err := remove(m.files.log); err != nil {
		return err
	}
	if err := unix.Mkfifo(m.files.log, 0o600); err != nil {
		return &fs.PathError{Op: "mkfifo", Path: m.files.log, Err: err}
	}
	m.removeAtEnd(m.files.log)
	r, err := os.OpenFile(m.files.log, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	// A writer of our own keeps the reader from an end before Firecracker opens it.
	w, err := os.OpenFile(m.files.log, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		r.Close()
		return err
	}
	m.said = &tail{max: tailSize}
	forward := logTo(m.log)
	s := newStream(r, io.MultiWriter(m.said, forward))
	m.onEnd(func() {
		w.Close()
		s.finish()
		forward.flush()
	})
	return nil
}

// startProcess runs Firecracker with pipes of its own: it makes the shared
// description of its output non-blocking, which a terminal would suffer from.
func (m *machine) startProcess(context.Context) error {
	m.stderr = &tail{max: tailSize}
	out, err := m.pipe(m.console)
	if err != nil {
		return err
	}
	defer out.Close()
	errs, err := m.pipe(m.stderr)
	if err != nil {
		return err
	}
	defer errs.Close()
	m.proc, err = startProcess(command{path: m.binary, args: m.args(), stdout: out, stderr: errs})
	return err
}

// args are Firecracker's arguments: names that MicroPod chose, nothing else.
func (m *machine) args() []string {
	level := "Warn"
	if m.log.Enabled(context.Background(), slog.LevelDebug) {
		level = "Info"
	}
	return []string{"--id", m.config.ID, "--api-sock", m.files.api, "--log-path", m.files.log, "--level", level, "--show-level"}
}

// pipe returns the end for the VMM to write to; what comes goes to the sink.
func (m *machine) pipe(to io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := newStream(r, to)
	m.onEnd(s.finish)
	return w, nil
}

// waitReady returns when the API answers, or the process has ended.
func (m *machine) waitReady(ctx context.Context) error {
	m.api = NewClient(m.files.api)
	m.onEnd(m.api.Close)
	for delay := time.Millisecond; ; delay = min(2*delay, 20*time.Millisecond) {
		v, err := m.api.Version(ctx)
		if err == nil {
			m.log.Debug("firecracker answers", "version", v.String())
			return firstOf(supported(v), tighten(m.files.api))
		}
		// No socket yet, or one that is bound and not listened on.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		select {
		case <-m.proc.exited:
			return fmt.Errorf("ended before it answered")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

func (m *machine) configure(ctx context.Context) error {
	for _, r := range m.requests {
		if err := m.api.Do(ctx, r); err != nil {
			return err
		}
	}
	return tighten(m.config.VsockPath)
}

func (m *machine) boot(ctx context.Context) error {
	return m.api.Do(ctx, PutAction(InstanceStart))
}

// tighten makes a socket 0600, whatever the umask was.
func tighten(socket string) error { return os.Chmod(socket, 0o600) }
