//go:build failpoint

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Variables of the environment.
const (
	variable = "MICROPOD_FAILPOINT"
	// hitsVariable names a file to which the point is written before the death.
	hitsVariable = "MICROPOD_FAILPOINT_HITS"
)

// modeVMM in place of our own death.
const modeVMM = "vmm"

// times counts how often this process came to the point that is armed.
var times atomic.Int64

// Here kills this process if p is armed.
func Here(p Point) { HereOr(p, nil) }

// HereOr is Here, or kills the VMM, whose pid is asked for, if p is armed so.
func HereOr(p Point, vmm func() int) {
	text := os.Getenv(variable)
	armed, mode, _ := strings.Cut(text, "=")
	name, count, _ := strings.Cut(armed, ":")
	if name != string(p) || mode == modeVMM && vmm == nil {
		return
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		n = 1
	}
	if times.Add(1) != n {
		return
	}
	record(text)
	pid := os.Getpid()
	if mode == modeVMM {
		pid = vmm()
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if mode != modeVMM {
		select {} // the signal may take a moment to arrive
	}
}

func record(text string) {
	f, err := os.OpenFile(os.Getenv(hitsVariable), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(text + "\n")
	f.Close()
}

// Environ is what a child needs to die in our place.
func Environ() []string {
	return []string{variable + "=" + os.Getenv(variable), hitsVariable + "=" + os.Getenv(hitsVariable)}
}
