// Package state keeps the records of containers and their VMs on disk, with
// the locks and the one durable write of the tree.
//
// It is not a daemon and holds nothing in memory between calls: the files are
// the claim, the kernel's locks are the truth. A container runs exactly while
// somebody holds its alive lock; status.json only says what that process last
// wrote. Any number of processes may use one root at the same time.
//
// A container's directory is made under a temporary name and renamed into
// place together with its entry in vms.json, under one lock; it is removed in
// the reverse order. What a crash leaves in between belongs to nobody and the
// next Create sweeps it.
package state

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound  = errors.New("no such container")
	ErrAmbiguous = errors.New("ambiguous id prefix")
	ErrNameTaken = errors.New("name is already in use")
	// ErrLocked says that another process holds the lock.
	ErrLocked = errors.New("locked by another process")
	// ErrNewer is a file written by a newer MicroPod.
	ErrNewer = errors.New("written by a newer micropod")
	// ErrDamaged is a file that does not decode.
	ErrDamaged = errors.New("damaged state file")
)

// Names of the files in a root, relative to it.
const (
	fileVMs     = "vms.json"
	fileVMsLock = "vms.lock"
	dirVMs      = "vms"

	fileNetworks     = "networks.json"
	fileNetworksLock = "networks.lock"
)

// Names of the files in a container's directory.
const (
	fileConfig  = "config.json"
	fileStatus  = "status.json"
	fileService = "service.json"
	fileHealth  = "health.json"
	fileAlive   = "alive"
	fileConsole = "console.log"
	fileLog     = "container.log"
	fileJSONLog = "container-json.log"
	fileVsock   = "vsock.sock"
	fileToken   = "token"
	fileControl = "control.sock"
	filePeer    = "peer.sock"
	fileDisk    = "rw.img"
	dirVMM      = "vmm"
)

// newPrefix and gonePrefix mark directories on their way in and out.
const (
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// Paths names the files of one container.
type Paths struct{ Dir string }

// Config is the container's description.
func (p Paths) Config() string { return filepath.Join(p.Dir, fileConfig) }

// Status is what the supervisor last wrote.
func (p Paths) Status() string { return filepath.Join(p.Dir, fileStatus) }

// Service is the status of a VM that serves the files of a container which does
// not run, while there is one.
func (p Paths) Service() string { return filepath.Join(p.Dir, fileService) }

// Health is what the last health checks said.
func (p Paths) Health() string { return filepath.Join(p.Dir, fileHealth) }

// Alive is the file whose lock the supervisor holds for its life.
func (p Paths) Alive() string { return filepath.Join(p.Dir, fileAlive) }

// Console is the guest's serial console.
func (p Paths) Console() string { return filepath.Join(p.Dir, fileConsole) }

// Log holds the container's stdout and stderr.
func (p Paths) Log() string { return filepath.Join(p.Dir, fileLog) }

// JSONLog holds them with the logging driver json-file. Who collects docker's
// logs looks for this ending.
func (p Paths) JSONLog() string { return filepath.Join(p.Dir, fileJSONLog) }

// Vsock is the socket of the VM's vsock device.
func (p Paths) Vsock() string { return filepath.Join(p.Dir, fileVsock) }

// Token holds what a connection to the VM's agent must show, while the VM runs.
func (p Paths) Token() string { return filepath.Join(p.Dir, fileToken) }

// Control is the supervisor's own socket.
func (p Paths) Control() string { return filepath.Join(p.Dir, fileControl) }

// Peer is the socket at which the supervisors of other VMs in its networks of
// driver user reach the guest.
func (p Paths) Peer() string { return filepath.Join(p.Dir, filePeer) }

// Disk is the writable disk.
func (p Paths) Disk() string { return filepath.Join(p.Dir, fileDisk) }

// VMM is the directory of the VMM driver's own files.
func (p Paths) VMM() string { return filepath.Join(p.Dir, dirVMM) }

// Store is a root directory. Safe for concurrent use by many processes.
type Store struct{ root string }

// Open makes the root directory when it is missing and returns its Store.
func Open(root string) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("root directory %q is not absolute", root)
	}
	for _, d := range []string{root, filepath.Join(root, dirVMs)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("create state directory: %w", err)
		}
	}
	return &Store{root: root}, nil
}

// Root is the directory that Open was given.
func (s *Store) Root() string { return s.root }

// Paths names the files of the container with this complete id.
func (s *Store) Paths(id string) Paths { return Paths{Dir: filepath.Join(s.root, dirVMs, id)} }

// ValidID reports whether id has the form that NewID gives.
func ValidID(id string) bool { return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" }

// NewID returns 64 random hexadecimal digits, docker's form of a container id.
func NewID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// alphanumeric begin a name. No pattern: to compile one took an eighth of the
// start of every process of a VM.
const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// CheckName reports what is wrong with a name that a user chose.
func CheckName(name string) error {
	if len(name) < 2 || len(name) > 128 || !strings.Contains(alphanumeric, name[:1]) || strings.Trim(name, alphanumeric+"_.-") != "" {
		return fmt.Errorf("invalid container name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 128 of them", name)
	}
	return nil
}
