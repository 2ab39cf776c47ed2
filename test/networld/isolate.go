package networld

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

const isolated = "NETWORLD_ISOLATED"

// Isolate restarts the test program, if root runs it, in a network namespace that
// has only its own loopback: what MicroPod sets up there as root, bridges and rules, is
// not the machine's, and ends with the test. Others cannot set up anything. It is
// called first in TestMain, by no program that a test starts.
func Isolate() error {
	if os.Geteuid() != 0 || os.Getenv(isolated) != "" {
		return os.Unsetenv(isolated)
	}
	// The namespace is this thread's, and so that of the program after exec.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), isolated+"=1"))
}
