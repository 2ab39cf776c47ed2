package state

// HostConfig is how a container is confined and what surrounds it, as the user
// asked for it, by docker's names. Its zero value is docker's default.
type HostConfig struct {
	CapAdd     []string `json:"capAdd,omitempty"` // CAP_CHOWN, or ALL
	CapDrop    []string `json:"capDrop,omitempty"`
	Privileged bool     `json:"privileged,omitempty"`
	// SecurityOpt holds KEY=VALUE; a seccomp profile is there as its text.
	SecurityOpt []string `json:"securityOpt,omitempty"`
	// UnmaskPaths: nothing of /proc and /sys is hidden or read-only.
	UnmaskPaths bool     `json:"unmaskPaths,omitempty"`
	Ulimits     []Ulimit `json:"ulimits,omitempty"`
	PidsLimit   int64    `json:"pidsLimit,omitempty"` // 0 and less: none
	OOMScoreAdj int      `json:"oomScoreAdj,omitempty"`
	ShmSize     int64    `json:"shmSize,omitempty"` // bytes; 0 is 64 MiB

	CPUShares         int64  `json:"cpuShares,omitempty"`
	CPUPeriod         int64  `json:"cpuPeriod,omitempty"` // microseconds
	CPUQuota          int64  `json:"cpuQuota,omitempty"`  // microseconds of each period; less than 0: none
	NanoCPUs          int64  `json:"nanoCpus,omitempty"`  // billionths of a processor
	CPUSetCPUs        string `json:"cpusetCpus,omitempty"`
	MemoryReservation int64  `json:"memoryReservation,omitempty"` // bytes

	// What the VMM lets the guest do with its disks in a second.
	DeviceReadBps   []ThrottleDevice `json:"deviceReadBps,omitempty"`  // bytes
	DeviceWriteBps  []ThrottleDevice `json:"deviceWriteBps,omitempty"` // bytes
	DeviceReadIOps  []ThrottleDevice `json:"deviceReadIOps,omitempty"`
	DeviceWriteIOps []ThrottleDevice `json:"deviceWriteIOps,omitempty"`

	Sysctls    map[string]string `json:"sysctls,omitempty"`
	DNS        []string          `json:"dns,omitempty"`
	DNSSearch  []string          `json:"dnsSearch,omitempty"`
	DNSOptions []string          `json:"dnsOptions,omitempty"`
	ExtraHosts []string          `json:"extraHosts,omitempty"` // NAME:ADDRESS
	Mounts     []Mount           `json:"mounts,omitempty"`

	RestartPolicy RestartPolicy `json:"restartPolicy,omitzero"`
	LogConfig     LogConfig     `json:"logConfig,omitzero"`
	NetworkMode   string        `json:"networkMode,omitempty"` // none, user, container:ID, or a network as the user named it; "" is user
	PortBindings  []PortBinding `json:"portBindings,omitempty"`
	PublishAll    bool          `json:"publishAll,omitempty"` // the exposed ports too
	// CACertificates, in PEM, are trusted beside those of the image.
	CACertificates string `json:"caCertificates,omitempty"`
}

// LogConfig is a logging driver with its options; "" is the default, local.
type LogConfig struct {
	Type   string            `json:"type,omitempty"`
	Config map[string]string `json:"config,omitempty"`
}

// RestartPolicy says when a container that has ended is started again.
type RestartPolicy struct {
	// Name is one of those below; "" is RestartNo.
	Name string `json:"name,omitempty"`
	// MaximumRetryCount bounds RestartOnFailure; 0 is no bound.
	MaximumRetryCount int `json:"maximumRetryCount,omitempty"`
}

// Names of restart policies, docker's.
const (
	RestartNo            = "no"
	RestartOnFailure     = "on-failure"
	RestartAlways        = "always"
	RestartUnlessStopped = "unless-stopped"
)

// None reports whether the container is never started again.
func (p RestartPolicy) None() bool { return p.Name == "" || p.Name == RestartNo }

// Ulimit is a resource limit; -1 is none.
type Ulimit struct {
	Name string `json:"name"` // nofile
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Mount is a tmpfs of --mount.
type Mount struct {
	Target    string `json:"target"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
	SizeBytes int64  `json:"sizeBytes,omitempty"` // 0: half of the memory
	Mode      uint32 `json:"mode,omitempty"`      // 0: that of the directory, or 1777
}

// ThrottleDevice limits one device, or all that it stands for.
type ThrottleDevice struct {
	Path string `json:"path"`
	Rate uint64 `json:"rate"` // in a second; 0 is no limit
}
