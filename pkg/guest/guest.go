// Package guest is what runs inside a microVM: the agent, which is PID 1 of the
// guest, and the container stage, the same program executed again inside the
// container's namespaces, which turns itself into the container's process.
//
// It is not for the host. Nothing here outlives the VM: there is no state to
// recover, and the answer to a fatal problem is a line on the console and a
// reboot, which is how a VM ends.
//
// Lifecycle of the agent: mount what a kernel needs, load modules, find the
// channel to the host, say hello, then serve calls until the host asks for
// shutdown or its control connection ends. A guest without its supervisor has
// no purpose, so it leaves.
//
// Trust: the host is trusted, the container is not. The agent never follows a
// link of the image on its own side of pivot_root, and no process of the guest
// but the agent can reach the host's control channel.
package guest

import (
	"os"
)

// Names by which the program knows its part (args[0]).
const (
	stageName = "micropod-container"
	initPath  = "/init"
)

// IsAgent reports whether this process was started to be a part of the guest
// and must call Main: PID 1 started as /init, or a container stage.
func IsAgent(args []string) bool {
	if len(args) == 0 {
		return false
	}
	return args[0] == stageName || os.Getpid() == 1 && args[0] == initPath
}

// Main runs the part that args[0] names. It returns only in a container stage,
// with the exit code; PID 1 ends with a reboot.
func Main(args []string) int {
	if len(args) > 0 && args[0] == stageName {
		return stageMain(args[1:])
	}
	agentMain()
	return 1
}
