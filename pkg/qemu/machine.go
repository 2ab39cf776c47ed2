package qemu

import (
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/micropod/micropod/pkg/vmm"
)

// Machine is a running QEMU.
type Machine struct {
	log     *slog.Logger
	id      string
	process *process
	qmp     *qmp
	links   []*os.File // one for each NIC, nil where that has a device
	loaded  bool       // see FromTemplate
	killed  atomic.Bool
	heard   atomic.Bool // see Heard
	dropped atomic.Int64
	done    chan struct{}
	exit    vmm.Exit // valid after done
}

var (
	_ vmm.Machine   = (*Machine)(nil)
	_ vmm.Linker    = (*Machine)(nil)
	_ vmm.Templated = (*Machine)(nil)
)

func newMachine(log *slog.Logger, id string) *Machine {
	return &Machine{log: log, id: id, done: make(chan struct{})}
}

// PID is QEMU's process id.
func (m *Machine) PID() int { return m.process.pid() }

// Link is the host's end of the i-th NIC; see vmm.Linker.
func (m *Machine) Link(i int) *os.File { return m.links[i] }

// FromTemplate reports that the guest has not booted.
func (m *Machine) FromTemplate() bool { return m.loaded }

// Heard is told that the guest has spoken.
func (m *Machine) Heard() { m.heard.Store(true) }

// Done is closed once QEMU has ended and its files and sockets are gone.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit tells how QEMU ended; it waits for Done.
func (m *Machine) Exit() vmm.Exit {
	<-m.done
	return m.exit
}

// Kill ends QEMU at once and returns when Done is closed. Idempotent.
func (m *Machine) Kill() error {
	m.killed.Store(true)
	m.process.cmd.Process.Kill() // an error means that it has ended
	<-m.done
	return nil
}

// ConsoleDropped is the number of console bytes that did not fit into the log.
// Valid after Done is closed.
func (m *Machine) ConsoleDropped() int64 { return m.dropped.Load() }

// watch waits for QEMU's end and frees what belonged to it.
func (m *Machine) watch(undo cleanup) {
	<-m.process.done
	undo.run()
	m.exit = m.describeExit()
	close(m.done)
}

func (m *Machine) finishConsole(c *console) {
	if err := c.finish(); err != nil {
		m.log.Warn("console log", "vm", m.id, "err", err)
	}
	if n := c.dropped.Load(); n > 0 {
		m.dropped.Store(n)
		m.log.Warn("console log is full", "vm", m.id, "dropped_bytes", n)
	}
}

func (m *Machine) describeExit() vmm.Exit {
	state := m.process.cmd.ProcessState
	status, _ := state.Sys().(syscall.WaitStatus)
	reason, stopped := m.qmp.ended()
	switch {
	case status.Signaled():
		e := vmm.Exit{Code: -1, Signal: int(status.Signal())}
		switch {
		case m.killed.Load():
			e.Reason = "killed"
		case stopped:
			e.Reason = "qemu stopped the machine after an internal error: " + m.process.stderr.String()
		default:
			e.Reason = fmt.Sprintf("qemu was ended by signal %d (%v)", e.Signal, status.Signal())
		}
		return e
	case state.ExitCode() != 0:
		return vmm.Exit{Code: state.ExitCode(), Reason: fmt.Sprintf("qemu exited with %d: %s", state.ExitCode(), m.process.stderr)}
	case reason == "guest-reset" || reason == "guest-shutdown":
		return vmm.Exit{}
	case reason == "":
		return vmm.Exit{Reason: "qemu ended without saying why"}
	default:
		return vmm.Exit{Reason: "qemu ended: " + reason}
	}
}
