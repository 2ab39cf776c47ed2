package firecracker

// Drive is a block device: a file or block device of the host, or the socket
// of a vhost-user backend (then path, read-only, limiter and engine are absent).
type Drive struct {
	DriveID      string       `json:"drive_id"`
	IsRootDevice bool         `json:"is_root_device"`
	PathOnHost   string       `json:"path_on_host,omitempty"`
	IsReadOnly   bool         `json:"is_read_only,omitempty"`
	PartUUID     string       `json:"partuuid,omitempty"`   // root device only
	CacheType    string       `json:"cache_type,omitempty"` // Unsafe (no flush) or Writeback
	IOEngine     string       `json:"io_engine,omitempty"`  // Sync or Async
	RateLimiter  *RateLimiter `json:"rate_limiter,omitempty"`
	Socket       string       `json:"socket,omitempty"`
}

// DrivePatch opens another or a resized file behind a drive.
type DrivePatch struct {
	DriveID     string       `json:"drive_id"`
	PathOnHost  string       `json:"path_on_host,omitempty"`
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// Pmem is a persistent memory device backed by a non-empty file.
type Pmem struct {
	ID          string       `json:"id"`
	PathOnHost  string       `json:"path_on_host"`
	RootDevice  bool         `json:"root_device,omitempty"`
	ReadOnly    bool         `json:"read_only,omitempty"`
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// PmemPatch changes the limiter of a pmem device.
type PmemPatch struct {
	ID          string       `json:"id"`
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// NetworkInterface joins a TAP of the host to the guest.
type NetworkInterface struct {
	IfaceID       string       `json:"iface_id"`
	HostDevName   string       `json:"host_dev_name"`
	GuestMAC      string       `json:"guest_mac,omitempty"`
	MTU           int          `json:"mtu,omitempty"` // a hint to the guest; the TAP has its own
	RxRateLimiter *RateLimiter `json:"rx_rate_limiter,omitempty"`
	TxRateLimiter *RateLimiter `json:"tx_rate_limiter,omitempty"`
}

// NetworkInterfacePatch changes the limiters of an interface.
type NetworkInterfacePatch struct {
	IfaceID       string       `json:"iface_id"`
	RxRateLimiter *RateLimiter `json:"rx_rate_limiter,omitempty"`
	TxRateLimiter *RateLimiter `json:"tx_rate_limiter,omitempty"`
}

// Vsock is the one vsock device. Its socket is bound when the request arrives.
type Vsock struct {
	GuestCID uint32 `json:"guest_cid"`
	UDSPath  string `json:"uds_path"`
}

// Entropy is the virtio-rng device.
type Entropy struct {
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// Balloon takes memory back from the guest.
type Balloon struct {
	AmountMiB             uint32 `json:"amount_mib"`
	DeflateOnOOM          bool   `json:"deflate_on_oom"`
	StatsPollingIntervalS uint16 `json:"stats_polling_interval_s,omitempty"` // 0 is off
	FreePageHinting       bool   `json:"free_page_hinting,omitempty"`
	FreePageReporting     bool   `json:"free_page_reporting,omitempty"`
}

// BalloonPatch changes the balloon's target; it needs the guest's driver.
type BalloonPatch struct {
	AmountMiB uint32 `json:"amount_mib"`
}

// BalloonStatsPatch changes the polling interval, between values above 0.
type BalloonStatsPatch struct {
	StatsPollingIntervalS uint16 `json:"stats_polling_interval_s"`
}

// BalloonStats are numbers of the guest: good for display, never for decisions.
type BalloonStats struct {
	TargetPages        uint32  `json:"target_pages"`
	ActualPages        uint32  `json:"actual_pages"`
	TargetMiB          uint32  `json:"target_mib"`
	ActualMiB          uint32  `json:"actual_mib"`
	SwapIn             *uint64 `json:"swap_in,omitempty"`
	SwapOut            *uint64 `json:"swap_out,omitempty"`
	MajorFaults        *uint64 `json:"major_faults,omitempty"`
	MinorFaults        *uint64 `json:"minor_faults,omitempty"`
	FreeMemory         *uint64 `json:"free_memory,omitempty"`
	TotalMemory        *uint64 `json:"total_memory,omitempty"`
	AvailableMemory    *uint64 `json:"available_memory,omitempty"`
	DiskCaches         *uint64 `json:"disk_caches,omitempty"`
	HugetlbAllocations *uint64 `json:"hugetlb_allocations,omitempty"`
	HugetlbFailures    *uint64 `json:"hugetlb_failures,omitempty"`
	OOMKill            *uint64 `json:"oom_kill,omitempty"`
	AllocStall         *uint64 `json:"alloc_stall,omitempty"`
	AsyncScan          *uint64 `json:"async_scan,omitempty"`
	DirectScan         *uint64 `json:"direct_scan,omitempty"`
	AsyncReclaim       *uint64 `json:"async_reclaim,omitempty"`
	DirectReclaim      *uint64 `json:"direct_reclaim,omitempty"`
}

// BalloonHintingStart begins a hinting run.
type BalloonHintingStart struct {
	AcknowledgeOnStop *bool `json:"acknowledge_on_stop,omitempty"` // default true
}

// BalloonHintingStatus tells both sides' command; a run is over at guest 0.
type BalloonHintingStatus struct {
	HostCmd  uint32  `json:"host_cmd"`
	GuestCmd *uint32 `json:"guest_cmd"`
}

// MemoryHotplug is the virtio-mem device; nothing is plugged at the start.
type MemoryHotplug struct {
	TotalSizeMiB int64 `json:"total_size_mib"`
	BlockSizeMiB int64 `json:"block_size_mib,omitempty"` // default 2
	SlotSizeMiB  int64 `json:"slot_size_mib,omitempty"`  // default 128
}

// MemoryHotplugPatch asks for a size; poll the status for the outcome.
type MemoryHotplugPatch struct {
	RequestedSizeMiB int64 `json:"requested_size_mib"`
}

// MemoryHotplugStatus is the answer of GET /hotplug/memory.
type MemoryHotplugStatus struct {
	TotalSizeMiB     int64 `json:"total_size_mib"`
	BlockSizeMiB     int64 `json:"block_size_mib"`
	SlotSizeMiB      int64 `json:"slot_size_mib"`
	PluggedSizeMiB   int64 `json:"plugged_size_mib"`
	RequestedSizeMiB int64 `json:"requested_size_mib"`
}

// SnapshotCreate writes a paused VM to two files.
type SnapshotCreate struct {
	SnapshotPath string `json:"snapshot_path"`
	MemFilePath  string `json:"mem_file_path"`
	SnapshotType string `json:"snapshot_type,omitempty"` // Full (default) or Diff
}

// MemoryBackend is where a loaded VM's memory comes from.
type MemoryBackend struct {
	BackendType string `json:"backend_type"` // File or Uffd
	BackendPath string `json:"backend_path"`
}

// NetworkOverride gives a loaded VM's interface another TAP.
type NetworkOverride struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
}

// VsockOverride gives a loaded VM's vsock another socket.
type VsockOverride struct {
	UDSPath string `json:"uds_path"`
}

// SnapshotLoad restores a VM in a fresh process. A failure ends the process.
type SnapshotLoad struct {
	SnapshotPath     string            `json:"snapshot_path"`
	MemBackend       MemoryBackend     `json:"mem_backend"`
	TrackDirtyPages  bool              `json:"track_dirty_pages,omitempty"`
	ResumeVM         bool              `json:"resume_vm,omitempty"`
	NetworkOverrides []NetworkOverride `json:"network_overrides,omitempty"`
	VsockOverride    *VsockOverride    `json:"vsock_override,omitempty"`
	ClockRealtime    bool              `json:"clock_realtime,omitempty"`
	HugePages        string            `json:"huge_pages,omitempty"` // Snapshot, None, Transparent or 2M
}
