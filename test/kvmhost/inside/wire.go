// Package inside is the half of kvmhost that runs in the emulated machine: PID 1,
// which makes a complete Linux of the machine's own root directory and a
// kernel, and the server that runs commands there.
//
// PID 1 itself only reaps: the server is its child, so that nobody else's wait
// takes away the exit status of a command. The machine ends with the server.
package inside

const (
	// PortName is the virtio-serial port that carries portmux.
	PortName = "micropod.kvmhost"
	// ConfigFile is where the Config lies in the initramfs.
	ConfigFile = "kvmhost.json"
	// ControlPort takes one connection for each command: a Spec, the answer
	// Streams, then Resize values; in the end comes a Status. A client that
	// goes away ends its command. Every message is a line of JSON.
	ControlPort = 1
	// firstStream is the first of the ports of streams. They count up.
	firstStream = 16
)

// Words of the kernel's command line that become PID 1's environment.
const (
	Marker      = "kvmhost=init"
	markerName  = "kvmhost"
	markerInit  = "init"
	markerServe = "serve"
)

// Config is what PID 1 is told, in the initramfs.
type Config struct {
	// Modules in load order.
	Modules []Module
	// Show are directories of the machine below /tmp or /var/tmp, which are
	// empty otherwise, to be seen in their place, read-only.
	Show []string
	// Writable are directories of the machine to be written, by the tags of
	// their shares.
	Writable map[string]string
}

// Module is a kernel module, a file below modules/.
type Module struct {
	File       string
	Parameters string `json:",omitempty"`
}

// Spec is a command.
type Spec struct {
	Args []string
	Env  []string
	Dir  string
	User *User `json:",omitempty"`
	// Size is the size of its terminal; nil is no terminal. With a terminal
	// there is no stream of errors.
	Size *Resize `json:",omitempty"`
}

// User is who runs a command. Its only supplementary group is that of /dev/kvm.
type User struct{ UID, GID uint32 }

// Resize is a new size of the terminal.
type Resize struct{ Rows, Cols uint16 }

// Streams says at which ports the streams of a command wait: standard input at
// Base, output at Base+1, errors at Base+2. Error is set instead when there is
// no such command.
type Streams struct {
	Base  uint32
	Error string `json:",omitempty"`
}

// Status is the end of a command, as a shell's $? tells it.
type Status struct {
	Code  int
	Error string `json:",omitempty"`
}
