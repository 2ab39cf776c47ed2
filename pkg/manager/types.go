package manager

import (
	"errors"
	"io"
	"time"

	"github.com/micropod/micropod/pkg/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound   = errors.New("no such container or image")
	ErrAmbiguous  = errors.New("ambiguous id prefix")
	ErrConflict   = errors.New("conflict") // name taken, VM running, image in use
	ErrNotRunning = errors.New("container is not running")
	ErrInvalid    = errors.New("invalid argument")
)

// PullPolicy says when an image is fetched.
type PullPolicy string

// Pull policies, as docker names them.
const (
	PullMissing PullPolicy = "missing"
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// CreateOptions describe a new container. The zero value of a field means that
// the image or the default decides.
type CreateOptions struct {
	Image string
	// Command replaces the image's CMD when it is not empty.
	Command []string
	// Entrypoint replaces the image's ENTRYPOINT (and drops its CMD) when it is
	// not nil; empty and not nil removes it.
	Entrypoint []string
	Name       string
	// Env holds "K=V" entries; "K" alone removes the image's variable.
	Env         []string
	User        string
	GroupAdd    []string
	Workdir     string
	Hostname    string
	Domainname  string
	Labels      map[string]string
	Annotations map[string]string
	TTY         bool // -t
	Stdin       bool // -i
	StdinStays  bool // the end of a client's input is not the container's: -di
	AutoRemove  bool // --rm
	Init        bool // --init
	ReadOnly    bool // --read-only
	// Tmpfs holds "PATH[:OPTIONS]" entries.
	Tmpfs       []string
	StopSignal  string
	StopTimeout *time.Duration // negative: wait for ever
	// ExposedPorts as 80/tcp; recorded only.
	ExposedPorts []string
	// Healthcheck is over the image's: what it does not say, that decides. A Test
	// of NONE is no check.
	Healthcheck *Healthcheck
	HostConfig  HostConfig
	// Networks to be in, the first with the default route; nil is the default.
	Networks []NetworkAttachment
	// NoDefaultCACertificates leaves those of the root directory out; otherwise
	// they come before those of HostConfig.
	NoDefaultCACertificates bool
	// CPUs is rounded up to whole vCPUs; 0 is the default of one.
	CPUs float64
	// MemoryBytes of the guest; 0 is the default of 512 MiB.
	MemoryBytes int64
	// StorageBytes is the size of the writable disk; 0 is 10 GiB.
	StorageBytes int64
	Pull         PullPolicy
	Platform     string
	VMM          string // auto, firecracker, qemu
	Kernel       string // path; "" is ROOT/vmlinux
}

// State of a container, in docker's words.
type State string

// States.
const (
	StateCreated  State = "created"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StatePaused   State = "paused"
	// StateRestarting: it has ended, and its restart policy starts it again.
	StateRestarting State = "restarting"
	StateExited     State = "exited"
	// StateBroken is a record that cannot be read; see Container.Problem.
	StateBroken State = "broken"
)

// Container is what list and inspect show of one container and its VM.
type Container struct {
	ID      string // 64 hexadecimal characters
	Name    string
	Image   string // as the user wrote it
	ImageID string // sha256:…
	Created time.Time
	Command []string // entrypoint and command as executed
	// Entrypoint and Cmd are its two parts.
	Entrypoint, Cmd []string
	State           State
	// Status is State for people: "Up 2 minutes", "Exited (0) 3 seconds ago".
	Status    string
	ExitCode  int
	OOMKilled bool
	Error     string // why it could not start, or ended other than by its process
	// RestartCount counts the starts by the restart policy since a user's.
	RestartCount int
	StartedAt    time.Time
	FinishedAt   time.Time
	// VMOf is the id of the container in whose VM it runs; "" for a VM of its own.
	VMOf string
	// PID is the process id of the VMM on the host, 0 when not running, or when the
	// VM is another container's.
	PID           int
	SupervisorPID int
	Labels        map[string]string
	Annotations   map[string]string
	Platform      string
	TTY, Stdin    bool
	StdinStays    bool // the end of a client's input is not the container's
	AutoRemove    bool
	StopSignal    string
	StopTimeout   *time.Duration
	VMM           VMMInfo
	CPUs          int
	MemoryMiB     int
	StorageBytes  int64
	ReadOnly      bool
	Kernel        string
	FromTemplate  bool // the guest of the last start went on from a template
	Hostname      string
	Domainname    string
	Env           []string // of the user and the image, without defaults
	User          string
	Workdir       string
	GroupAdd      []string
	Tmpfs         []string
	Init          bool
	ExposedPorts  []string
	HostConfig    HostConfig
	Healthcheck   *Healthcheck
	Shell         []string // SHELL of the image
	// Health is nil for a container that is not checked, or was never started.
	Health *Health
	// Attachments are the networks that it is to be in; Networks those that it is
	// in, while it runs.
	Attachments []NetworkAttachment
	Networks    []Network
	// Problem says why the record is broken, "" for a sound one.
	Problem string
	// Phases of the last start with their durations.
	Phases []PhaseTime
	// Paths of the VM's files. LogPath is that of the logging driver json-file,
	// "" with the others.
	Dir, LogPath, ConsolePath string
	Disks                     []string
}

// VMMInfo says which VMM runs a container and why.
type VMMInfo struct {
	Name, Version, Accel, Reason string
}

// PhaseTime is one step of a start.
type PhaseTime struct {
	Name     string
	Duration time.Duration
}

// Streams are the terminal side of an attached container. A nil field is not attached.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Resize delivers terminal sizes; the first should be there before the start.
	Resize <-chan Size
	// Signals are forwarded to the container's process (numbers).
	Signals <-chan int
	// DetachKeys: the byte sequence that detaches when TTY input holds it; nil disables.
	DetachKeys []byte
}

// Size of a terminal in characters.
type Size struct{ Cols, Rows uint16 }

// Result of an attachment.
type Result struct {
	ExitCode int
	// Detached: the user left, the container runs on.
	Detached bool
}

// LogOptions select log lines.
type LogOptions struct {
	Follow       bool
	Tail         int // lines; negative: all
	Since, Until time.Time
	Timestamps   bool
	Details      bool // labels, env and tag of the logging driver
	Out, Err     io.Writer
}

// Image is what images and inspect show of one image.
type Image struct {
	ID       string // sha256:…
	Names    []string
	Digests  []string
	Pulled   string // digest that a pull got it as, only in its answer
	Created  time.Time
	Size     int64
	Platform string
	Config   ocispec.Image
	// Docker is Config with the fields that only docker has.
	Docker  image.DockerImage
	DiffIDs []string
	// Added is when the image was first stored here.
	Added time.Time
}

// Check is one line of doctor.
type Check struct {
	Name string
	OK   bool
	// Required: the main job cannot run without it.
	Required bool
	Detail   string
	Fix      string
}

// Info is what `micropod info` shows.
type Info struct {
	Root                                 string
	Containers, Running, Paused, Stopped int
	Images                               int
	VMMs                                 []VMMInfo // usable first
	DefaultVMM                           string
	Kernel, KernelRelease                string
	DiskFormat                           string // erofs or ext4
	CPUs                                 int
	MemoryBytes                          int64
	OSType, Architecture                 string
}

// Progress is told about layers while an image is pulled, loaded or pushed. It
// is called from several goroutines.
type Progress interface {
	// Layer reports one step: "pulling", "exists", "downloading", "extracting",
	// "done"; of a push "preparing", "present", "mounted from NAME", "pushing",
	// "pushed".
	Layer(id, event string, current, total int64)
}
