package state

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names a process so that its number can be used again without being
// mistaken: a pid counts only together with its start time and the boot.
type Process struct {
	PID int `json:"pid,omitempty"`
	// Start is the time at which it began, in clock ticks since boot
	// (proc(5), /proc/PID/stat field 22).
	Start uint64 `json:"start,omitempty"`
	// Boot is the kernel's random boot id.
	Boot string `json:"boot,omitempty"`
}

// IdentifyProcess describes a running process; the zero Process if it is gone.
func IdentifyProcess(pid int) Process {
	start, err := startTime(pid)
	if err != nil {
		return Process{}
	}
	return Process{PID: pid, Start: start, Boot: bootID()}
}

// Alive reports whether this very process still runs.
func (p Process) Alive() bool {
	if p.PID <= 0 || p.Boot != bootID() {
		return false
	}
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

// Resident is the process's memory that is in RAM, in bytes, the part that it
// shares with others too; 0 if it does not run.
func (p Process) Resident() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID))
	// Alive after the read: the number was then not that of a successor.
	if err != nil || !p.Alive() {
		return 0
	}
	fields := strings.Fields(string(b)) // proc(5): size, resident, …
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// Kill ends this very process with SIGKILL and waits until it is gone; nil if
// it already was. A process that took over the number is never touched.
func (p Process) Kill() error {
	if p.PID <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor pins the process: what is true now stays true.
	if !p.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return waitPidfd(fd)
}

// EndsWithin reports whether this very process has ended, or does so in time.
func (p Process) EndsWithin(limit time.Duration) bool {
	if !p.Alive() {
		return true
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return !p.Alive()
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return true
	}
	ended, err := pollPidfd(fd, int(limit.Milliseconds()))
	return ended && err == nil
}

// waitPidfd returns when the process has ended.
func waitPidfd(fd int) error {
	_, err := pollPidfd(fd, -1)
	return err
}

// pollPidfd waits for the end of a process, a number of milliseconds or, if it is
// negative, for ever: a pidfd turns readable then.
func pollPidfd(fd, limit int) (ended bool, err error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, limit)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command name, in parentheses, may hold anything: count from its end.
	_, rest, ok := cutLast(string(b), ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("parse /proc/%d/stat", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
