package supervisor

import (
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Op is what a client wants of a supervisor.
type Op string

// Operations of the control socket. A connection opens with one Command.
// OpAttach, OpStop and OpWait are answered by a Final frame when the VM has ended
// and all that belonged to it is free; the connection closes when the lock is free
// too. What is refused, and every other operation that opens a connection, but for
// OpWatch, is answered at once by a Reply.
const (
	// OpAttach streams output to the client, and input and further commands
	// (OpResize, OpDetach) from it. They queue behind input that the container
	// does not read: a signal has a connection of its own.
	OpAttach Op = "attach"
	// OpStop sends Signal, then SIGKILL after Timeout, then ends the VM.
	OpStop Op = "stop"
	// OpSignal sends Signal, and is answered at once by a Reply.
	OpSignal Op = "signal"
	// OpPause and OpUnpause stop the container and let it go on, and are answered
	// by a Reply.
	OpPause   Op = "pause"
	OpUnpause Op = "unpause"
	// OpExec starts the process of Exec, which nobody is joined to, and is answered
	// by a Reply.
	OpExec Op = "exec"
	// OpUpdate makes the changes of Update, and is answered by a Reply.
	OpUpdate Op = "update"
	// OpNetworks puts the VM into the networks of Networks, and is answered by a Reply.
	OpNetworks Op = "networks"
	OpResize   Op = "resize"
	OpDetach   Op = "detach"
	// OpWait only waits.
	OpWait Op = "wait"
	// OpWatch sends an empty frame whenever the log has grown.
	OpWatch Op = "watch"
)

// Command is the first frame of a connection, and on an attached one any later
// control frame.
type Command struct {
	Op     Op  `json:"op"`
	Signal int `json:"signal,omitempty"`
	// Timeout of OpStop; nil is the container's own, negative is for ever.
	Timeout *time.Duration `json:"timeout,omitempty"`
	Cols    uint16         `json:"cols,omitempty"`
	Rows    uint16         `json:"rows,omitempty"`
	// Keep makes OpStop keep a container that would be removed at its end.
	Keep bool `json:"keep,omitempty"`
	// Hold makes OpPause end with the connection, or with Client.LetGo.
	Hold bool `json:"hold,omitempty"`
	// Input: the client sends standard input. Once: its end, or
	// its loss, is the end of the container's.
	Input bool `json:"input,omitempty"`
	Once  bool `json:"once,omitempty"`
	// Update is what OpUpdate changes.
	Update *Update `json:"update,omitempty"`
	// Networks are those that OpNetworks puts the VM into.
	Networks *Networks `json:"networks,omitempty"`
	// Exec is what OpExec starts.
	Exec *api.ExecRequest `json:"exec,omitempty"`
}

// Reply answers OpSignal, OpPause, OpUnpause, OpExec, OpUpdate and OpNetworks, and whatever is refused.
type Reply struct {
	Error string `json:"error,omitempty"`
	// Code of the guest's own errors.
	Code api.Code `json:"code,omitempty"`
}

// Final tells how the container ended.
type Final struct {
	ExitCode  int    `json:"exitCode"`
	OOMKilled bool   `json:"oomKilled,omitempty"`
	Error     string `json:"error,omitempty"`

	phase string // of the start, where that failed
}
