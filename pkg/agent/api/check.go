package api

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a guest may say about itself.
const (
	maxPhases = 64
	maxName   = 128     // a phase name, a kernel release, a terminal
	maxPID    = 1 << 22 // the kernel's own bound of a pid
)

// CheckID reports whether id may name a container: [a-zA-Z0-9][a-zA-Z0-9_.-]*,
// at most MaxID bytes. Such an id is safe as one path element.
func CheckID(id string) error {
	if id == "" || len(id) > MaxID {
		return fmt.Errorf("container id of %d bytes: 1 to %d are allowed", len(id), MaxID)
	}
	for i, c := range []byte(id) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return fmt.Errorf("container id %s: bad character at byte %d", Clean(fmt.Sprintf("%q", id), maxName), i)
		}
	}
	return nil
}

// Clean makes text of an untrusted peer fit to be shown: valid UTF-8, at most
// limit bytes, no control or invisible formatting characters (they drive
// terminals), each replaced by a blank.
func Clean(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if !unicode.IsPrint(r) && r != ' ' || r == utf8.RuneError {
			r = ' '
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Clean bounds and sanitises everything in h that a guest chose.
func (h *Hello) Clean() {
	h.Kernel = Clean(h.Kernel, maxName)
	h.Phases = CleanPhases(h.Phases)
}

// Clean bounds and sanitises an error that a guest sent. An unknown code
// becomes CodeInternal.
func (e *Error) Clean() {
	switch e.Code {
	case CodeNotFound, CodeNotExecutable, CodeInvalid, CodeConflict, CodeInternal:
	default:
		e.Code = CodeInternal
	}
	e.Phase = Clean(e.Phase, maxName)
	e.Message = Clean(e.Message, MaxError)
}

// CleanPhases bounds and sanitises a guest's phases.
func CleanPhases(in []Phase) []Phase {
	out := make([]Phase, 0, min(len(in), maxPhases))
	for _, p := range in[:min(len(in), maxPhases)] {
		out = append(out, Phase{
			Name: Clean(p.Name, maxName),
			At:   max(0, min(p.At, math.MaxInt64/4)),
		})
	}
	return out
}

// Check reports whether a guest's answer to r is within its bounds, and
// sanitises the texts. Pids ascend, so that More comes to an end.
func (p *ProcessesReply) Check(r ProcessesRequest) error {
	last := r.After
	for i := range p.Processes {
		q := &p.Processes[i]
		if q.PID <= last || q.PID > maxPID || q.PPID < 0 || q.PPID > maxPID || q.UID < 0 || q.UID > math.MaxUint32 || q.CPU < 0 {
			return fmt.Errorf("process %d (parent %d, user %d) after %d: %w", q.PID, q.PPID, q.UID, last, ErrFrame)
		}
		last = q.PID
		q.TTY, q.Command = Clean(q.TTY, maxName), Clean(q.Command, MaxCommand)
	}
	if p.More && last == r.After {
		return fmt.Errorf("no process, and more to come: %w", ErrFrame)
	}
	return nil
}

// Check reports whether a guest's Exit is within its bounds, and replaces a
// time that is more than a day away from now, which the guest's clock never is.
func (e *Exit) Check(now time.Time) error {
	if err := CheckID(e.ID); err != nil {
		return fmt.Errorf("exit: %w: %w", ErrFrame, err)
	}
	if e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > 64 {
		return fmt.Errorf("exit of %s with code %d, signal %d: %w", e.ID, e.Code, e.Signal, ErrFrame)
	}
	if d := e.At.Sub(now); d > 24*time.Hour || d < -24*time.Hour {
		e.At = now
	}
	return nil
}
