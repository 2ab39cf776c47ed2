package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/micropod/micropod/pkg/agent/api"
)

// startFailed ends a start that did not work, with docker's exit code.
func (s *supervisor) startFailed(phase string, err error) Final {
	if errors.Is(err, context.Canceled) && context.Cause(s.ctx) != nil {
		err = context.Cause(s.ctx)
	}
	s.log.Info("start failed", "phase", phase, "err", err)
	if s.before != nil {
		return s.againFailed(err)
	}
	f := Final{ExitCode: exitCode(err), Error: err.Error(), phase: phase}
	var ge *api.Error
	if (f.ExitCode == 126 || f.ExitCode == 127) && errors.As(err, &ge) {
		f.Error = ge.Message // the command is wrong: our own steps add nothing
	}
	return f
}

// exitCode is docker's: 127 for a command that is not there, 126 for one that
// cannot be executed, 125 for everything else that is not the container's own.
func exitCode(err error) int {
	var ge *api.Error
	if errors.As(err, &ge) {
		switch ge.Code {
		case api.CodeNotFound:
			return 127
		case api.CodeNotExecutable:
			return 126
		}
	}
	if errors.Is(err, errKilled) {
		return exitUnknown
	}
	return 125
}

// guestError completes an error of an agent call: if the VM went down, that is
// the story, and the console may know why.
func (s *supervisor) guestError(err error) error {
	var ge *api.Error
	if err == nil || errors.As(err, &ge) {
		return err
	}
	select {
	case <-s.machine.Done():
		return fmt.Errorf("%w: %w", s.vmEnded(), err)
	default:
		return err
	}
}

// bootError explains why the agent did not answer.
func (s *supervisor) bootError(err error) error {
	if s.booting.Err() != nil {
		return context.Cause(s.booting)
	}
	select {
	case <-s.machine.Done():
		return fmt.Errorf("the VM ended before its agent answered: %w", s.vmEnded())
	default:
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer from the guest within %v", s.plan.Limits.Boot)
	}
	return s.withConsole(err)
}

// vmEnded explains a VM that ended by itself.
func (s *supervisor) vmEnded() error {
	reason := s.machine.Exit().Reason
	if reason == "" {
		reason = "the guest went down"
	}
	return s.withConsole(errors.New(reason))
}

// causes are what a console says when a boot goes wrong, and what it means.
var causes = []struct{ text, cause string }{
	{"Out of memory", "the guest ran out of memory: give it more with --memory"},
	{"Kernel panic - not syncing: System is deadlocked on memory", "the guest ran out of memory: give it more with --memory"},
	{"Initramfs unpacking failed", "the initramfs does not fit into the guest's memory: give it more with --memory"},
	{"No working init found", "the guest agent does not run there: it was built for another platform"},
	{"unable to mount root fs", "the kernel has no initramfs support"},
	{"invalid module format", "the kernel's modules belong to another kernel: run scripts/download-kernel.sh"},
	{"Kernel panic", "the guest kernel panicked"},
}

// withConsole adds the likely cause and the console's last lines to an error.
func (s *supervisor) withConsole(err error) error {
	text := consoleEnd(s.plan.VM.ConsolePath)
	if text == "" {
		return err
	}
	for _, c := range causes {
		if strings.Contains(text, c.text) {
			err = fmt.Errorf("%w: %s", err, c.cause)
			break
		}
	}
	return fmt.Errorf("%w; the console ends with:\n%s", err, lastLines(text, tailLines))
}

const (
	// A panic is followed by a trace of some kilobytes: what was wrong stands
	// before the lines that are worth showing.
	tailBytes = 16 << 10
	tailLines = 12
)

// consoleEnd returns the end of the console. The guest wrote it: control
// characters become question marks.
func consoleEnd(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > tailBytes {
		f.Seek(-tailBytes, io.SeekEnd)
	}
	b, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0)) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(bytes.TrimSpace(bytes.ReplaceAll(b, []byte("\r"), nil))), "?"))
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
