package firecracker

import "encoding/json"

// The bodies of the API, named after its resources. A field that Firecracker
// may leave out is left out by its zero value here too: most bodies refuse
// keys that their release does not know. Where zero means something, the field
// is a pointer. Sizes are MiB or bytes as the name or comment says.

// TokenBucket limits a rate: Size tokens, refilled over RefillTime
// milliseconds. Zero in either means no limit. OneTimeBurst tokens come on top
// once, at the start.
type TokenBucket struct {
	Size         uint64 `json:"size"`
	RefillTime   uint64 `json:"refill_time"`
	OneTimeBurst uint64 `json:"one_time_burst,omitempty"`
}

// RateLimiter limits bytes and operations of a device. A bucket that a PATCH
// leaves out stays as it is.
type RateLimiter struct {
	Bandwidth *TokenBucket `json:"bandwidth,omitempty"`
	Ops       *TokenBucket `json:"ops,omitempty"`
}

// ActionType is what PUT /actions does.
type ActionType string

// Actions. InstanceStart is for before the boot, the others for after it.
const (
	InstanceStart  ActionType = "InstanceStart"
	FlushMetrics   ActionType = "FlushMetrics"
	SendCtrlAltDel ActionType = "SendCtrlAltDel"
)

// Action is the body of PUT /actions.
type Action struct {
	Type ActionType `json:"action_type"`
}

// BootSource names kernel, initramfs and command line. The files are opened
// when the request arrives. Without BootArgs Firecracker uses its own default.
type BootSource struct {
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path,omitempty"`
	BootArgs        string `json:"boot_args,omitempty"`
}

// MachineConfig is the body of PUT and GET /machine-config.
type MachineConfig struct {
	VCPUCount       int    `json:"vcpu_count"`
	MemSizeMiB      int    `json:"mem_size_mib"`
	SMT             bool   `json:"smt,omitempty"`
	TrackDirtyPages bool   `json:"track_dirty_pages,omitempty"`
	HugePages       string `json:"huge_pages,omitempty"`   // None, Transparent or 2M
	CPUTemplate     string `json:"cpu_template,omitempty"` // deprecated; CPUConfig replaces it
}

// MachineConfigPatch changes what is set.
type MachineConfigPatch struct {
	VCPUCount       *int    `json:"vcpu_count,omitempty"`
	MemSizeMiB      *int    `json:"mem_size_mib,omitempty"`
	SMT             *bool   `json:"smt,omitempty"`
	TrackDirtyPages *bool   `json:"track_dirty_pages,omitempty"`
	HugePages       *string `json:"huge_pages,omitempty"`
	CPUTemplate     *string `json:"cpu_template,omitempty"`
}

// CPUConfig is a custom CPU template. Numbers are text: decimal, 0x or 0b.
// A bitmap is "0b" and the characters 0, 1, x (leave) and _.
type CPUConfig struct {
	KVMCapabilities []string          `json:"kvm_capabilities,omitempty"` // "121" to add, "!56" to drop
	CPUIDModifiers  []CPUIDLeafMod    `json:"cpuid_modifiers,omitempty"`
	MSRModifiers    []RegisterMod     `json:"msr_modifiers,omitempty"`
	RegModifiers    []RegisterMod     `json:"reg_modifiers,omitempty"` // arm64
	VCPUFeatures    []VCPUFeatureWord `json:"vcpu_features,omitempty"` // arm64
}

// CPUIDLeafMod changes the registers of one CPUID leaf.
type CPUIDLeafMod struct {
	Leaf      string             `json:"leaf"`
	Subleaf   string             `json:"subleaf"`
	Flags     int32              `json:"flags"`
	Modifiers []CPUIDRegisterMod `json:"modifiers"`
}

// CPUIDRegisterMod changes eax, ebx, ecx or edx.
type CPUIDRegisterMod struct {
	Register string `json:"register"`
	Bitmap   string `json:"bitmap"`
}

// RegisterMod changes a model-specific register (x86) or a register (arm64).
type RegisterMod struct {
	Addr   string `json:"addr"`
	Bitmap string `json:"bitmap"`
}

// VCPUFeatureWord changes one word of the arm64 vCPU features.
type VCPUFeatureWord struct {
	Index  int32  `json:"index"`
	Bitmap string `json:"bitmap"`
}

// Logger is where Firecracker's own log goes. Without Level it is Info.
type Logger struct {
	LogPath       string `json:"log_path,omitempty"`
	Level         string `json:"level,omitempty"` // Off, Trace, Debug, Info, Warn, Error
	ShowLevel     bool   `json:"show_level,omitempty"`
	ShowLogOrigin bool   `json:"show_log_origin,omitempty"`
	Module        string `json:"module,omitempty"`
}

// Metrics is where Firecracker writes one JSON object per minute. Once only.
type Metrics struct {
	MetricsPath string            `json:"metrics_path"`
	EmitID      bool              `json:"emit_id,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"`
}

// Serial is the output of the serial console. A path disables its input.
type Serial struct {
	SerialOutPath string       `json:"serial_out_path,omitempty"`
	RateLimiter   *TokenBucket `json:"rate_limiter,omitempty"` // bytes
}

// MMDSConfig switches the metadata service on for some network interfaces.
type MMDSConfig struct {
	NetworkInterfaces []string `json:"network_interfaces"`
	Version           string   `json:"version,omitempty"` // V1 or V2
	IPv4Address       string   `json:"ipv4_address,omitempty"`
	IMDSCompat        bool     `json:"imds_compat,omitempty"`
}

// VMState is what PATCH /vm asks for.
type VMState string

// States. In 1.16.0 and 1.16.1 a bare Paused and Resumed stops host-to-guest
// vsock for good (firecracker issue 6100).
const (
	Paused  VMState = "Paused"
	Resumed VMState = "Resumed"
)

// VMPatch is the body of PATCH /vm.
type VMPatch struct {
	State VMState `json:"state"`
}

// InstanceInfo is the answer of GET /.
type InstanceInfo struct {
	ID         string `json:"id"`
	State      string `json:"state"` // "Not started", "Running" or "Paused"
	VMMVersion string `json:"vmm_version"`
	AppName    string `json:"app_name"`
}

// VMConfig is the answer of GET /vm/config. Firecracker leaves cpu-config,
// logger and metrics null, and does not tell the serial device.
type VMConfig struct {
	BootSource        *BootSource        `json:"boot-source"`
	MachineConfig     *MachineConfig     `json:"machine-config"`
	CPUConfig         json.RawMessage    `json:"cpu-config"`
	Drives            []Drive            `json:"drives"`
	NetworkInterfaces []NetworkInterface `json:"network-interfaces"`
	Vsock             *Vsock             `json:"vsock"`
	Entropy           *Entropy           `json:"entropy"`
	Balloon           *Balloon           `json:"balloon"`
	Pmem              []Pmem             `json:"pmem"`
	MemoryHotplug     *MemoryHotplug     `json:"memory-hotplug"`
	MMDSConfig        *MMDSConfig        `json:"mmds-config"`
	Logger            *Logger            `json:"logger"`
	Metrics           *Metrics           `json:"metrics"`
}
