package firecracker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// endTimeout bounds the wait for the end of a VMM whose connection broke. On a busy
// host it comes late, and then the error would not say why.
const endTimeout = 10 * time.Second

// explain adds to an error of the start how the VMM ended, if it did. A broken
// connection mostly means just that.
func (m *machine) explain(err error) error {
	if m.proc == nil {
		return err
	}
	if isBroken(err) {
		select {
		case <-m.proc.exited:
		case <-time.After(endTimeout):
		}
	}
	if _, ended := m.proc.state(); !ended {
		return err
	}
	m.release() // all output has been read now
	e := m.outcome()
	switch {
	case e.Signal != 0:
		return fmt.Errorf("%w: %s", err, e.Reason)
	case e.Reason == "":
		return fmt.Errorf("%w: exit code %d", err, e.Code)
	}
	return fmt.Errorf("%w: exit code %d: %s", err, e.Code, e.Reason)
}

// isBroken reports that the API's connection broke.
func isBroken(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE, unix.ECONNREFUSED, fs.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// outcome tells how the VMM ended. Its output must have been read to the end.
func (m *machine) outcome() vmm.Exit {
	status, _ := m.proc.state()
	if status.Signaled() {
		return vmm.Exit{Code: -1, Signal: int(status.Signal()), Reason: m.signalReason(status.Signal())}
	}
	code := status.ExitStatus()
	if code == 0 {
		return vmm.Exit{Reason: m.guestReason()}
	}
	reason := codeReason(code)
	if last := m.lastWords(); last != "" {
		reason += ": " + last
	}
	return vmm.Exit{Code: code, Reason: reason}
}

// guestReason is "" unless the console told of a panic: the panic's reset ends
// Firecracker with 0, as a wanted one does.
func (m *machine) guestReason() string {
	if m.console == nil || m.console.panic == "" {
		return ""
	}
	return "guest console: " + m.console.panic
}

func (m *machine) signalReason(s syscall.Signal) string {
	if s == unix.SIGKILL && m.killed.Load() {
		return "killed"
	}
	if s == unix.SIGKILL && m.jail != nil && m.jail.oom {
		return "firecracker was killed: it needed more memory than its cgroup has"
	}
	reason := fmt.Sprintf("firecracker was ended by signal %d (%s)", int(s), unix.SignalName(s))
	if s == unix.SIGABRT {
		reason = "firecracker panicked (SIGABRT)"
	}
	if last := m.lastWords(); last != "" && s != unix.SIGKILL {
		reason += ": " + last
	}
	return reason
}

// lastWords is what Firecracker last complained of: in its log or, if that was
// not open yet, on stderr.
func (m *machine) lastWords() string {
	if m.said != nil {
		if text := lastComplaint(m.said.String()); text != "" {
			return text
		}
	}
	if m.stderr != nil {
		return oneLine(m.stderr.String(), maxLine)
	}
	return ""
}

// lastComplaint finds the last warning or error of a log, with the lines that
// continue it. A line reads "<time> [<id>:<thread>:<LEVEL>] <text>". The one
// that only repeats the exit code does not count.
func lastComplaint(log string) string {
	var last string
	var open bool
	for line := range strings.Lines(log) {
		text, level, isStart := splitLogLine(line)
		switch {
		case !isStart && open:
			last += " " + line
		case !isStart:
		case (level == "ERROR" || level == "WARN") && !strings.HasPrefix(text, "Firecracker exiting"):
			last, open = text, true
		default:
			open = false
		}
	}
	return oneLine(last, maxLine)
}

func splitLogLine(line string) (text, level string, ok bool) {
	when, rest, found := strings.Cut(line, " [")
	tags, text, closed := strings.Cut(rest, "] ")
	if !found || !closed || strings.Contains(when, " ") {
		return "", "", false
	}
	parts := strings.Split(tags, ":")
	if len(parts) < 3 {
		return text, "", true
	}
	return text, parts[2], true
}

// codeReason explains Firecracker's exit codes.
func codeReason(code int) string {
	switch code {
	case 1:
		return "firecracker stopped with an error"
	case 2:
		return "firecracker stopped with an unexpected error"
	case 148:
		return "firecracker's seccomp filter stopped a forbidden system call"
	case 149:
		return "firecracker got a bus error (SIGBUS): no huge pages left, or a disk file was cut"
	case 150:
		return "firecracker got a segmentation fault (SIGSEGV)"
	case 151:
		return "firecracker went over its file size limit (SIGXFSZ)"
	case 152:
		return "firecracker refused its log level"
	case 153:
		return "firecracker refused its arguments"
	case 154:
		return "firecracker went over its CPU time limit (SIGXCPU)"
	case 155:
		return "firecracker got a broken pipe (SIGPIPE)"
	case 156:
		return "firecracker got a hang-up (SIGHUP)"
	case 157:
		return "firecracker ran an illegal instruction (SIGILL)"
	}
	return "firecracker stopped with an unknown code"
}
