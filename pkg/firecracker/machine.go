package firecracker

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// machine is one VM, from the start's first step on.
type machine struct {
	config   vmm.Config
	files    files
	requests []Request
	binary   string
	jail     *jail    // nil: Firecracker runs as we do
	guard    []string // see Options.Guard
	jailer   Version  // of the jail's jailer
	origin   *origin  // nil: it boots
	named    bool     // its files have the names of a template
	log      *slog.Logger

	free    []func() // in the order of acquiring; called in reverse
	proc    *process
	links   []*os.File // of the NICs that have one, in their order
	api     *Client
	console *console
	said    *tail // Firecracker's log
	stderr  *tail
	killed  atomic.Bool
	heard   atomic.Bool // see Heard

	exit vmm.Exit // written before done is closed
	done chan struct{}
}

var (
	_ vmm.Machine   = (*machine)(nil)
	_ vmm.Linker    = (*machine)(nil)
	_ vmm.Templated = (*machine)(nil)
)

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
	if _, ended := m.proc.state(); !ended {
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

// tryAtEnd registers what to free when it can fail.
func (m *machine) tryAtEnd(what string, f func() error) {
	m.onEnd(func() {
		if err := f(); err != nil {
			m.log.Warn("end of firecracker", "step", what, "err", err)
		}
	})
}

// removeAtEnd registers a file of ours.
func (m *machine) removeAtEnd(path string) {
	m.tryAtEnd("remove a file", func() error { return remove(path) })
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

func (m *machine) buildJail(context.Context) error {
	if m.jail == nil {
		return nil
	}
	m.jail.onEnd = m.tryAtEnd
	return m.jail.build(m.config)
}

// makeLog makes the FIFO for the log.
func (m *machine) makeLog() (err error) {
	if m.jail != nil {
		m.files.log, err = m.jail.addLog()
		return err
	}
	if err := remove(m.files.log); err != nil {
		return err
	}
	if err := unix.Mkfifo(m.files.log, 0o600); err != nil {
		return &fs.PathError{Op: "mkfifo", Path: m.files.log, Err: err}
	}
	m.removeAtEnd(m.files.log)
	return nil
}

// openLog makes and opens the FIFO of Firecracker's log. Without one the log would go to
// stdout, into the console; a file could grow without bound. What the FIFO does
// not hold, Firecracker drops.
func (m *machine) openLog(context.Context) error {
	if err := m.makeLog(); err != nil {
		return err
	}
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
func (m *machine) startProcess(ctx context.Context) error {
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
	switch {
	case m.jail != nil:
		m.proc, err = m.jail.start(ctx, m.config, m.jailArgs(), out, errs)
	case len(m.config.NICs) > 0:
		m.proc, err = m.startWithNetwork(ctx, out, errs)
	default:
		m.proc, err = m.startAlone(out, errs)
	}
	if err == nil {
		m.links = m.proc.links
		m.onEnd(m.proc.closeLinks)
	}
	return err
}

// args are Firecracker's arguments: names that MicroPod chose, nothing else.
func (m *machine) args() []string {
	return append([]string{"--id", m.config.ID}, m.argsFor(m.files.api, m.files.log)...)
}

// jailArgs are what is after the jailer's own: that one adds --id itself.
func (m *machine) jailArgs() []string { return m.argsFor("/"+jailAPI, "/"+jailLog) }

func (m *machine) argsFor(api, log string) []string {
	level := "Warn"
	if m.log.Enabled(context.Background(), slog.LevelDebug) {
		level = "Info"
	}
	return []string{"--api-sock", api, "--log-path", log, "--level", level, "--show-level"}
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

// welcome decides by its release whether Firecracker may go on.
func (m *machine) welcome(v Version) error {
	if err := supported(v); err != nil {
		return err
	}
	if m.jail != nil {
		if err := sameRelease(m.jailer, v); err != nil {
			return err
		}
	}
	return tighten(m.files.api)
}

// askVersion is the first request; from a jail the socket must come out first.
func (m *machine) askVersion(ctx context.Context) (Version, error) {
	if m.jail != nil {
		err := m.jail.linkOut(jailAPI, m.files.api)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return Version{}, err
		}
	}
	return m.api.Version(ctx)
}

func (m *machine) configure(ctx context.Context) error {
	for _, r := range m.requests {
		if err := m.api.Do(ctx, r); err != nil {
			return err
		}
	}
	return m.openVsock()
}

// openVsock gives the socket of the VM its place.
func (m *machine) openVsock() error {
	if m.jail != nil {
		if err := m.jail.linkOut(jailVsock, m.config.VsockPath); err != nil {
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
