package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// schemaVersion is the version of every file that this package writes. A file
// with a larger one is refused, never guessed at.
const schemaVersion = 1

// Config describes a container, resolved from its image and the user's
// options. It is written when the container is created, so that the container
// starts the same way after its image's tag has moved, and by WriteConfig only.
type Config struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Name    string    `json:"name"` // at creation; vms.json has the present one
	Created time.Time `json:"created"`

	Image    string   `json:"image"`   // as the user wrote it
	ImageID  string   `json:"imageId"` // digest of the image's config
	Platform string   `json:"platform"`
	DiffIDs  []string `json:"diffIds"`

	Given       *Given            `json:"given,omitempty"`
	Args        []string          `json:"args"`
	Entrypoint  []string          `json:"entrypoint,omitempty"` // the first of Args
	Env         []string          `json:"env"`
	User        string            `json:"user,omitempty"`
	GroupAdd    []string          `json:"groupAdd,omitempty"`
	Workdir     string            `json:"workdir,omitempty"`
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Volumes     []string          `json:"volumes,omitempty"` // VOLUME of the image
	TTY         bool              `json:"tty,omitempty"`
	Stdin       bool              `json:"stdin,omitempty"`
	// StdinStays says that the end of a client's input is not the container's.
	StdinStays bool     `json:"stdinStays,omitempty"`
	AutoRemove bool     `json:"autoRemove,omitempty"`
	Init       bool     `json:"init,omitempty"`
	ReadOnly   bool     `json:"readOnly,omitempty"`
	Tmpfs      []string `json:"tmpfs,omitempty"`
	StopSignal int      `json:"stopSignal"`
	// StopTimeout is nil for the default; negative waits for ever.
	StopTimeout *time.Duration `json:"stopTimeout,omitempty"`
	// ExposedPorts are those of the image and the user, as 80/tcp.
	ExposedPorts []string `json:"exposedPorts,omitempty"`
	// Healthcheck is the user's over the image's, nil for none.
	Healthcheck *Healthcheck `json:"healthcheck,omitempty"`
	Shell       []string     `json:"shell,omitempty"` // SHELL of the image
	HostConfig  HostConfig   `json:"hostConfig,omitzero"`
	// Networks that the container is in, a device of the guest for each; the first
	// has the default route. Nil, of records of an older version, is what
	// HostConfig.NetworkMode says.
	Networks []Attachment `json:"networks"`

	CPUs         int    `json:"cpus"`
	MemoryMiB    int    `json:"memoryMiB"`
	StorageBytes int64  `json:"storageBytes"`
	VMM          string `json:"vmm"`              // auto, firecracker or qemu
	Kernel       string `json:"kernel,omitempty"` // "" is the root's vmlinux
}

// Given is what the image and the user said, before it was resolved: inspect
// shows it. Records of an older version do not have it.
type Given struct {
	Env        []string `json:"env,omitempty"` // the user's, then the image's
	StopSignal string   `json:"stopSignal,omitempty"`
}

// Phase of a container's life, as its supervisor last wrote it.
type Phase string

// Phases. The lock decides whether those before PhaseExited are true.
const (
	PhaseStarting Phase = "starting"
	PhaseRunning  Phase = "running"
	// PhaseRestarting: it has ended, and its restart policy starts it again.
	PhaseRestarting Phase = "restarting"
	PhaseExited     Phase = "exited"
)

// Status is what the supervisor knows of the container's last start.
type Status struct {
	Version    int       `json:"version"`
	Phase      Phase     `json:"phase"`
	Paused     bool      `json:"paused,omitempty"` // of PhaseRunning
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int       `json:"exitCode"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	// RestartCount counts the starts by the restart policy since a user's.
	RestartCount int `json:"restartCount,omitempty"`
	// Error says why it could not start, or how it ended other than by its process.
	Error string `json:"error,omitempty"`
	// VMM and Supervisor are processes of the host, 0 when there are none.
	VMM        Process `json:"vmm"`
	Supervisor Process `json:"supervisor"`
	Driver     Driver  `json:"driver"`
	Kernel     string  `json:"kernel,omitempty"` // release that the guest reported
	// FromTemplate says that the guest went on from a template.
	FromTemplate bool     `json:"fromTemplate,omitempty"`
	Disks        []string `json:"disks,omitempty"`
	// Networks of a container that runs, or whose supervisor was lost.
	Networks []Network `json:"networks,omitempty"`
	Timings  []Timing  `json:"timings,omitempty"`
}

// Driver says which VMM runs the VM and why.
type Driver struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Accel   string `json:"accel"`
	Reason  string `json:"reason"`
}

// Timing is one step of a start.
type Timing struct {
	Name     string        `json:"name"`
	Duration time.Duration `json:"duration"` // nanoseconds
}

// VM is one entry of vms.json.
type VM struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Image   string    `json:"image"`
	Created time.Time `json:"created"`
}

// maxToken bounds the file of a VM's token, in bytes.
const maxToken = 1 << 10

// WriteToken keeps the token of a VM's agent where other processes of its owner
// find it. It is of no use after the VM, so that nothing needs to be durable.
func WriteToken(p Paths, token string) error {
	if err := RemoveToken(p); err != nil {
		return err
	}
	f, err := os.OpenFile(p.Token(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("keep the agent's token: %w", err)
	}
	_, err = f.WriteString(token)
	return errors.Join(err, f.Close())
}

// RemoveToken removes a VM's token. Idempotent.
func RemoveToken(p Paths) error {
	if err := os.Remove(p.Token()); err != nil && !missing(err) {
		return fmt.Errorf("remove the agent's token: %w", err)
	}
	return nil
}

// ReadToken reads the token of a VM that runs; fs.ErrNotExist says that none does.
func ReadToken(p Paths) (string, error) {
	f, err := os.Open(p.Token())
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return "", fmt.Errorf("read the agent's token: %w", err)
	}
	return string(b), nil
}

// ReadConfig reads a container's description.
func (s *Store) ReadConfig(id string) (*Config, error) {
	var c Config
	if err := readJSON(s.Paths(id).Config(), &c); err != nil {
		return nil, err
	}
	return &c, nil
}

// LockConfig takes the lock of a container's description, for a change of it. It
// keeps other changes out, not readers and not a start.
func (s *Store) LockConfig(id string) (*FileLock, error) {
	if _, err := os.Stat(s.Paths(id).Config()); err != nil {
		return nil, fmt.Errorf("lock container %s: %w", id, err)
	}
	return Lock(s.Paths(id).Config())
}

// TempConfigs lists what changes of a container's description left that did not
// end; nothing while one is under way.
func (s *Store) TempConfigs(id string) []string {
	path := s.Paths(id).Config()
	if _, err := os.Stat(path); err != nil {
		return nil // TryLock would make it
	}
	l, err := TryLock(path)
	if err != nil {
		return nil
	}
	defer l.Unlock()
	return TempFiles(path)
}

// RemoveTempConfigs removes what TempConfigs lists.
func (s *Store) RemoveTempConfigs(id string) error {
	l, err := s.LockConfig(id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return RemoveTempFiles(s.Paths(id).Config())
}

// WriteConfig replaces a container's description durably. Only the holder of its
// LockConfig may call it.
func (s *Store) WriteConfig(c *Config) error {
	c.Version = schemaVersion
	return writeJSON(s.Paths(c.ID).Config(), c)
}

// ReadStatus reads a container's status; nil without an error when it was
// never started.
func (s *Store) ReadStatus(id string) (*Status, error) {
	var st Status
	err := readJSON(s.Paths(id).Status(), &st)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

// ReadService reads the status of a VM that serves the files of a container which
// does not run; nil without an error when there is none.
func (s *Store) ReadService(id string) (*Status, error) {
	var st Status
	err := readJSON(s.Paths(id).Service(), &st)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

// WriteService is WriteStatus for such a VM. What it says is gone with the VM,
// and the container's own status is not touched.
func WriteService(p Paths, st Status) error {
	st.Version = schemaVersion
	return writeJSON(p.Service(), st)
}

// RemoveService removes the status of such a VM. Idempotent.
func RemoveService(p Paths) error {
	if err := os.Remove(p.Service()); err != nil && !missing(err) {
		return fmt.Errorf("remove status of the VM: %w", err)
	}
	return nil
}

// WriteStatus replaces a container's status durably. Only the holder of the
// container's alive lock may call it.
func WriteStatus(p Paths, st Status) error {
	st.Version = schemaVersion
	return writeJSON(p.Status(), st)
}
