// Package supervisor is the process that belongs to one VM for its whole life.
//
// The manager prepares a Plan, holds the container's alive lock and spawns the
// same binary again, detached; that process inherits the lock, boots the VM,
// starts the container's process in it, copies its output to the log and to
// those who are attached, and frees everything in every ending. While it lives
// it answers on the container's control socket (control.go).
//
// A container that shares another one's network runs in that one's VM, and its
// supervisor has none (tenancy.go).
//
// A restart policy makes it boot one VM after the other (restart.go). With
// Plan.Service it starts no process and answers on no socket: it serves the files
// of a container that does not run, to the one client it was spawned for
// (service.go).
//
// It is not a daemon: it ends with its VM. If it is killed, the VMM dies with
// it, the lock is free, and the next command cleans up from the records.
package supervisor

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/logdriver"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// Plan is all that a supervisor needs to know. It travels as JSON through a
// pipe, never through arguments or the environment: it holds the container's
// environment and the VM's token.
type Plan struct {
	ID     string           `json:"id"`
	Dir    string           `json:"dir"` // the container's directory
	Driver state.Driver     `json:"driver"`
	VM     vmm.Config       `json:"vm"`
	Setup  api.SetupRequest `json:"setup"`
	Start  api.StartRequest `json:"start"`
	// VMOf is the container in whose VM this one runs, nil for a VM of its own. Of
	// VM, Disks, CPUs and MemoryMiB count then, of Setup only Root.Format.
	VMOf *VMOwner `json:"vmOf,omitempty"`
	// Service says that nothing is started: the VM serves the container's files
	// until the attached client hangs up. See service.go.
	Service bool `json:"service,omitempty"`
	// NICs of the VM, in the order of VM.NICs.
	NICs []network.NIC `json:"nics,omitempty"`
	// AutoRemove deletes the container once it has ended.
	AutoRemove bool `json:"autoRemove"`
	// Restart says whether it is started again then.
	Restart     state.RestartPolicy `json:"restart,omitzero"`
	StopSignal  int                 `json:"stopSignal"`
	StopTimeout time.Duration       `json:"stopTimeout"` // negative: for ever
	Log         logdriver.Spec      `json:"log"`
	// Health is nil for a container without a health check.
	Health *HealthPlan `json:"health,omitempty"`
	Limits Limits      `json:"limits"`
	// Timings of what the manager did before.
	Timings []state.Timing `json:"timings,omitempty"`
	// Attached says that a client's socket was handed down; Spawn sets it.
	Attached bool `json:"attached,omitempty"`
	Debug    bool `json:"debug,omitempty"`
}

// Secrets are the token of a VM's agent and what its random numbers begin with, new
// for each VM.
func Secrets() (token string, entropy []byte) {
	b := make([]byte, 32+64)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:32]), b[32:]
}

// Limits are how long the supervisor waits for a guest that does not answer.
// Emulation is 10 to 50 times slower than hardware, so they are generous:
// they end a hang, they do not measure.
type Limits struct {
	Boot     time.Duration `json:"boot"`     // start of the VMM to the agent's hello
	Call     time.Duration `json:"call"`     // one call of the agent
	Kill     time.Duration `json:"kill"`     // SIGKILL to the end of the process
	Shutdown time.Duration `json:"shutdown"` // flush of the writable disk
	// Attached is for a client that takes no output, once the container is to
	// end. It is well below Kill and docker's default time of a stop: a process
	// must not be killed, nor its VM, because somebody does not read.
	Attached time.Duration `json:"attached"`
}

// DefaultLimits suit a slow emulated guest.
func DefaultLimits() Limits {
	return Limits{
		Boot:     2 * time.Minute,
		Call:     time.Minute,
		Kill:     10 * time.Second,
		Shutdown: 20 * time.Second,
		Attached: 4 * time.Second,
	}
}

// Outcome is what the supervisor reports once the container's process has
// started, or could not be.
type Outcome struct {
	OK bool `json:"ok"`
	// ExitCode is docker's: 125, 126 or 127.
	ExitCode int            `json:"exitCode,omitempty"`
	Phase    string         `json:"phase,omitempty"` // where it failed
	Error    string         `json:"error,omitempty"`
	Timings  []state.Timing `json:"timings,omitempty"`
}
