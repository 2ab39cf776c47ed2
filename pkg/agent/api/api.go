// Package api is the protocol between the host and the guest agent.
//
// Transport: stream connections over vsock (pkg/vmm, Config.VsockPath). The
// guest dials ReadyPort of the host once, sends a Hello, and that connection
// becomes the supervisor's control connection. Every later connection is
// dialed by the host to AgentPort of the guest and opens with an Open frame
// that carries the VM's token and says what the connection is for.
//
// A connection carries frames: a one-byte kind, a big-endian 32-bit payload
// length, the payload (frame.go). Control payloads are JSON; stdio payloads are
// raw bytes. Firecracker's vsock has no half-close, so end-of-file is a frame.
//
// Each side treats the other's bytes as untrusted: every length, count and
// identifier is bounded here, in one place.
package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Version of the protocol. Host and agent must agree exactly: both ship
// together and the agent is never older than the VM it runs in.
const Version = 3

// Ports of the vsock address space.
const (
	// ReadyPort is the host port that the agent dials when it is up.
	ReadyPort = 1024
	// AgentPort is the guest port on which the agent listens.
	AgentPort = 1024
)

// Bounds, in bytes unless said otherwise.
const (
	MaxControl = 4 << 20  // one control frame of the host: Open, Request
	MaxReply   = 64 << 10 // one control frame of the guest: Hello, Reply, Exit
	MaxData    = 64 << 10 // one stdio frame
	MaxSeccomp = 32 << 10 // a seccomp program: the kernel takes 4096 instructions
	MaxError   = 4 << 10  // text of an Error
	MaxID      = 64       // a container or process id
	MaxCommand = 4 << 10  // command line of a Process

	MaxCACertificates = 1 << 20 // StartRequest.CACertificates
)

// Files of a container that was given CA certificates, all in PEM.
const (
	// CADir holds them, and is nobody else's.
	CADir = "/etc/micropod"
	// CABundle has the certificates that the image trusts, and those given.
	CABundle = "/etc/micropod/ca-certificates.crt"
	// CAExtra has those given alone.
	CAExtra = "/etc/micropod/extra-ca-certificates.crt"
	// CAInstead is an environment variable for programs that come with the world's
	// certificates and take it in their place: a container whose image has no
	// bundle does not get it.
	CAInstead = "REQUESTS_CA_BUNDLE=/etc/micropod/ca-certificates.crt"
)

// Hello is the agent's first frame on the ready connection.
type Hello struct {
	Version int    `json:"version"`
	Kernel  string `json:"kernel"` // uname -r
	// Phases are the agent's own boot steps with the time since kernel start.
	Phases []Phase `json:"phases,omitempty"`
}

// Phase is a named moment of the guest's boot.
type Phase struct {
	Name string        `json:"name"`
	At   time.Duration `json:"at"` // since the kernel started, nanoseconds
}

// Purpose says what a connection to AgentPort is for.
type Purpose string

// Purposes.
const (
	PurposeControl Purpose = "control"
	PurposeStdio   Purpose = "stdio"
	PurposeFiles   Purpose = "files"
	PurposeNIC     Purpose = "nic"
)

// Open is the first frame of a connection to AgentPort.
type Open struct {
	Version int     `json:"version"`
	Token   string  `json:"token"`
	Purpose Purpose `json:"purpose"`
	// Process is the id of the process whose stdio this is.
	Process string `json:"process,omitempty"`
	// Files is what is asked of the files of a container.
	Files *FilesRequest `json:"files,omitempty"`
	// Disk is what the disk is like that the connection is.
	Disk *DiskRequest `json:"disk,omitempty"`
	// NIC is the network device that the guest is to make.
	NIC *NICRequest `json:"nic,omitempty"`
}

// Method names a control call.
type Method string

// Methods.
const (
	MethodSetup     Method = "setup"
	MethodStart     Method = "start"
	MethodExec      Method = "exec"
	MethodSignal    Method = "signal"
	MethodResize    Method = "resize"
	MethodProcesses Method = "processes"
	MethodFreeze    Method = "freeze"
	MethodShutdown  Method = "shutdown"
)

// Request is a control call. IDs are chosen by the caller and echoed.
type Request struct {
	ID     uint64          `json:"id"`
	Method Method          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// Reply answers the Request of the same ID, in any order.
type Reply struct {
	ID     uint64          `json:"id"`
	Error  *Error          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Code classifies an Error.
type Code string

// Codes. The first three are docker's exit codes 127, 126 and 125, or 126 of an exec.
const (
	CodeNotFound      Code = "not-found"      // no such command in the image: 127
	CodeNotExecutable Code = "not-executable" // it cannot be executed: 126
	CodeInvalid       Code = "invalid"        // bad user, working directory …: 125
	CodeConflict      Code = "conflict"       // the container does not run: 1
	CodeInternal      Code = "internal"       // the agent or the guest kernel
)

// Error is a failed call. Message is guest text: bounded, and not to be
// trusted for anything but showing it to a person (escape it).
type Error struct {
	Code    Code   `json:"code"`
	Phase   string `json:"phase,omitempty"` // step that failed: "mount", "user", "exec" …
	Message string `json:"message"`
}

func (e *Error) Error() string {
	if e.Phase == "" {
		return e.Message
	}
	return fmt.Sprintf("%s: %s", e.Phase, e.Message)
}

// SetupRequest prepares the guest: once, before the first container.
type SetupRequest struct {
	// Token that every later connection must show.
	Token string `json:"token"`
	// Now is the host's clock, set if the guest's differs.
	Now time.Time `json:"now"`
	// Entropy is mixed into the guest's random pool and credited, at most 512 bytes.
	Entropy []byte `json:"entropy,omitempty"`
	// Root is the image and the writable disk.
	Root Root `json:"root"`
	// Sysctls are set in the guest before the container starts.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// NICs are the network devices, at most MaxNICs.
	NICs []NIC `json:"nics,omitempty"`
}

// Root describes the container's root file system.
type Root struct {
	// Format is "erofs" or "ext4".
	Format string `json:"format"`
	// Devices: the first is mounted, the others are its extra erofs devices.
	Devices []string `json:"devices"`
	// Writable is the ext4 device of the overlay's upper layer; "" puts it on a tmpfs.
	Writable string `json:"writable,omitempty"`
}

// SetupReply reports what the guest did.
type SetupReply struct {
	Phases []Phase `json:"phases,omitempty"`
}

// StartRequest starts a container's process.
type StartRequest struct {
	// ID of the container, [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most MaxID bytes.
	ID string `json:"id"`
	// OwnRoot says that MethodRoot has made the root file system of this ID; without
	// it that is SetupRequest.Root.
	OwnRoot bool `json:"ownRoot,omitempty"`
	// Spec is the OCI runtime spec. root.path is ignored, see OwnRoot;
	// root.readonly counts. process.user.uid/gid are ignored: see User.
	Spec *Spec `json:"spec"`
	// User as in `docker run --user`: "", "name", "uid", "name:group", "uid:gid",
	// ":gid"; resolved in the image's own /etc/passwd and /etc/group.
	User string `json:"user,omitempty"`
	// GroupAdd are additional groups, names or numbers.
	GroupAdd []string `json:"groupAdd,omitempty"`
	// Hostname, domain name and the files made from them.
	Hostname   string `json:"hostname"`
	Domainname string `json:"domainname,omitempty"`
	Hosts      []Host `json:"hosts,omitempty"` // more lines of /etc/hosts
	DNS        DNS    `json:"dns"`
	// EtcOf is the container whose very files of these this one has too, as it has
	// its network; "" gives it its own.
	EtcOf string `json:"etcOf,omitempty"`
	Init  bool   `json:"init,omitempty"`  // --init: a reaper is PID 1 of the container
	Stdin bool   `json:"stdin,omitempty"` // -i: stdin is the stdio connection, else /dev/null
	// Seccomp is the filter of the container's processes, nil for none; that of
	// the spec does not count.
	Seccomp *Seccomp `json:"seccomp,omitempty"`
	// AllDevices puts every device of the guest into the container's /dev.
	AllDevices bool `json:"allDevices,omitempty"`
	// CACertificates, in PEM, are trusted beside those of the image: in CABundle,
	// and in each bundle that the image has. At most MaxCACertificates bytes.
	CACertificates string `json:"caCertificates,omitempty"`
}

// Seccomp is a finished filter for seccomp(2). The host compiles it, so that the
// agent stays small.
type Seccomp struct {
	Flags   uint32 `json:"flags,omitempty"` // SECCOMP_FILTER_FLAG_…
	Program []byte `json:"program"`         // struct sock_filter, 8 bytes each, at most MaxSeccomp
}

// Host is a line of /etc/hosts.
type Host struct {
	Addr  string   `json:"addr"`
	Names []string `json:"names"`
}

// DNS is what goes into /etc/resolv.conf.
type DNS struct {
	Servers []string `json:"servers,omitempty"`
	Search  []string `json:"search,omitempty"`
	Options []string `json:"options,omitempty"`
}

// StartReply answers start and exec, once the process has been executed.
type StartReply struct {
	PID    int     `json:"pid"` // in the guest
	Phases []Phase `json:"phases,omitempty"`
}

// ExecRequest starts one more process in a container that runs.
type ExecRequest struct {
	// ID of the process, in the form of a container's id and in the same space:
	// its streams, signals, size and end go by it.
	ID string `json:"id"`
	// Container that the process joins.
	Container string `json:"container"`
	// Process of the OCI runtime spec; process.user.uid/gid are ignored: see User.
	Process *SpecProcess `json:"process"`
	// User and GroupAdd as in StartRequest, resolved in the container's present files.
	User     string   `json:"user,omitempty"`
	GroupAdd []string `json:"groupAdd,omitempty"`
	// Privileged gives the process every capability of the guest's kernel.
	Privileged bool `json:"privileged,omitempty"`
	Stdin      bool `json:"stdin,omitempty"` // stdin is the stdio connection, else /dev/null
	// Detach says that nobody is to take the output: it is discarded.
	Detach bool `json:"detach,omitempty"`
}

// SignalRequest sends a signal to a container's process, or to one of Exec.
type SignalRequest struct {
	ID     string `json:"id"`
	Signal int    `json:"signal"` // Linux number, 1 to 64
}

// ResizeRequest sets the size of a process's terminal, in characters.
type ResizeRequest struct {
	ID   string `json:"id"`
	Cols uint16 `json:"cols"`
	Rows uint16 `json:"rows"`
}

// FreezeRequest stops all processes of a container, or lets them go on. It does
// nothing to a container that is in that state already.
type FreezeRequest struct {
	ID     string `json:"id"`
	Frozen bool   `json:"frozen"`
}

// ProcessesRequest asks for the processes of a container.
type ProcessesRequest struct {
	ID string `json:"id"`
	// After is the last pid of the reply before; 0 begins.
	After int `json:"after,omitempty"`
}

// ProcessesReply holds processes by ascending pid, as many as a reply may hold.
type ProcessesReply struct {
	Processes []Process `json:"processes"`
	More      bool      `json:"more,omitempty"` // ask again, After the last
}

// Process is one process, as the guest's kernel has it.
type Process struct {
	PID     int           `json:"pid"`
	PPID    int           `json:"ppid"` // 0 is a parent outside of the guest's sight
	UID     int           `json:"uid"`  // effective
	TTY     string        `json:"tty"`  // "pts/0"; "?" without
	Started time.Time     `json:"started"`
	CPU     time.Duration `json:"cpu"` // user and system, nanoseconds
	// Command is the command line, cut; in brackets the name of a process without one.
	Command string `json:"command"`
}

// Exit is the event that a container's process, or one of Exec, has ended. All its output has
// been written to its stdio connection before.
type Exit struct {
	ID        string    `json:"id"`
	Code      int       `json:"code"`             // 0 to 255; 128+n for a signal
	Signal    int       `json:"signal,omitempty"` // the signal that ended it
	OOMKilled bool      `json:"oomKilled,omitempty"`
	At        time.Time `json:"at"`
}
