package firecracker

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Limits that Firecracker has, checked before a request is sent: its own
// messages do not always name the field.
const (
	maxVCPUs     = 32
	maxSunPath   = 107 // bytes of a unix socket's path
	maxIfaceName = 15  // bytes of a network device's name
	maxCmdline   = 2048
	minGuestCID  = 3
	minMTU       = 68
	maxMTU       = 65535
	defaultBlock = 2   // MiB, virtio-mem
	minSlot      = 128 // MiB, virtio-mem
	maxHotplug   = 1<<32 - 1
)

// checkID accepts what may stand for a device in a path of the API.
func checkID(kind, id string) error {
	if id == "" || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
		return fmt.Errorf("%s %q: must be letters, digits and '_'", kind, id)
	}
	return nil
}

// oneOf checks an enumeration; "" means the default.
func oneOf(field, value string, allowed ...string) error {
	if value == "" || slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s %q: must be one of %s", field, value, strings.Join(allowed, ", "))
}

func inRange[T int | int64 | uint32](field string, v, lo, hi T) error {
	if v < lo || v > hi {
		return fmt.Errorf("%s %d: must be %d to %d", field, v, lo, hi)
	}
	return nil
}

func notEmpty(field, value string) error {
	if value == "" {
		return fmt.Errorf("%s: is empty", field)
	}
	return nil
}

// firstOf returns the first error there is.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (a Action) check() error {
	return firstOf(notEmpty("action_type", string(a.Type)),
		oneOf("action_type", string(a.Type), string(InstanceStart), string(FlushMetrics), string(SendCtrlAltDel)))
}

func (b BootSource) check() error {
	if len(b.BootArgs) >= maxCmdline {
		return fmt.Errorf("boot_args: %d bytes are over the %d of a command line", len(b.BootArgs), maxCmdline-1)
	}
	return notEmpty("kernel_image_path", b.KernelImagePath)
}

func checkCPUs(count int, smt bool) error {
	if smt && count > 1 && count%2 != 0 {
		return fmt.Errorf("vcpu_count %d: must be 1 or even with smt", count)
	}
	return inRange("vcpu_count", count, 1, maxVCPUs)
}

func checkMemory(mib int, hugePages string) error {
	if mib < 1 {
		return fmt.Errorf("mem_size_mib %d: must be at least 1", mib)
	}
	if hugePages != "" && hugePages != "None" && mib%2 != 0 {
		return fmt.Errorf("mem_size_mib %d: must be even with huge pages", mib)
	}
	return oneOf("huge_pages", hugePages, "None", "Transparent", "2M")
}

func (m MachineConfig) check() error {
	return firstOf(checkCPUs(m.VCPUCount, m.SMT), checkMemory(m.MemSizeMiB, m.HugePages))
}

func (m MachineConfig) needs() []Feature {
	if m.HugePages == "Transparent" {
		return []Feature{TransparentHuge}
	}
	return nil
}

func (m MachineConfigPatch) check() error {
	if m == (MachineConfigPatch{}) {
		return fmt.Errorf("nothing to change")
	}
	var err error
	if m.VCPUCount != nil {
		err = checkCPUs(*m.VCPUCount, m.SMT != nil && *m.SMT)
	}
	pages := ""
	if m.HugePages != nil {
		pages = *m.HugePages
		err = firstOf(err, oneOf("huge_pages", pages, "None", "Transparent", "2M"))
	}
	if m.MemSizeMiB != nil {
		err = firstOf(err, checkMemory(*m.MemSizeMiB, pages))
	}
	return err
}

func (m MachineConfigPatch) needs() []Feature {
	if m.HugePages != nil && *m.HugePages == "Transparent" {
		return []Feature{TransparentHuge}
	}
	return nil
}

func (c CPUConfig) check() error {
	for _, leaf := range c.CPUIDModifiers {
		for _, r := range leaf.Modifiers {
			if !slices.Contains([]string{"eax", "ebx", "ecx", "edx"}, r.Register) {
				return fmt.Errorf("cpuid leaf %s: register %q: must be eax, ebx, ecx or edx", leaf.Leaf, r.Register)
			}
		}
	}
	return nil
}

func (d Drive) check() error {
	err := firstOf(checkID("drive_id", d.DriveID),
		oneOf("cache_type", d.CacheType, "Unsafe", "Writeback"),
		oneOf("io_engine", d.IOEngine, "Sync", "Async"))
	switch {
	case err != nil:
		return err
	case (d.PathOnHost == "") == (d.Socket == ""):
		return fmt.Errorf("drive %s: needs either path_on_host or socket", d.DriveID)
	case d.Socket != "" && (d.IsReadOnly || d.RateLimiter != nil || d.IOEngine != ""):
		return fmt.Errorf("drive %s: socket excludes is_read_only, rate_limiter and io_engine", d.DriveID)
	case d.PartUUID != "" && !d.IsRootDevice:
		return fmt.Errorf("drive %s: partuuid is for the root device", d.DriveID)
	}
	return nil
}

func (d DrivePatch) check() error { return checkID("drive_id", d.DriveID) }

func (p Pmem) check() error {
	return firstOf(checkID("id", p.ID), notEmpty("path_on_host", p.PathOnHost))
}

func (p Pmem) needs() []Feature {
	if p.RateLimiter != nil {
		return []Feature{PmemDevice, PmemRateLimit}
	}
	return []Feature{PmemDevice}
}

func (p PmemPatch) check() error     { return checkID("id", p.ID) }
func (p PmemPatch) needs() []Feature { return []Feature{PmemDevice, PmemRateLimit} }

func (n NetworkInterface) check() error {
	err := firstOf(checkID("iface_id", n.IfaceID), checkHostDev(n.HostDevName))
	if n.MTU != 0 {
		err = firstOf(err, inRange("mtu", n.MTU, minMTU, maxMTU))
	}
	if n.GuestMAC != "" {
		if mac, e := net.ParseMAC(n.GuestMAC); e != nil || len(mac) != 6 || strings.Count(n.GuestMAC, ":") != 5 {
			err = firstOf(err, fmt.Errorf("guest_mac %q: must be six bytes like 06:00:00:00:00:01", n.GuestMAC))
		}
	}
	return err
}

func checkHostDev(name string) error {
	if name == "" || len(name) > maxIfaceName {
		return fmt.Errorf("host_dev_name %q: must have 1 to %d bytes", name, maxIfaceName)
	}
	return nil
}

func (n NetworkInterface) needs() []Feature {
	if n.MTU != 0 {
		return []Feature{NetworkMTU}
	}
	return nil
}

func (n NetworkInterfacePatch) check() error { return checkID("iface_id", n.IfaceID) }

func checkSocketPath(field, path string) error {
	if path == "" || len(path) > maxSunPath {
		return fmt.Errorf("%s %q: must have 1 to %d bytes", field, path, maxSunPath)
	}
	return nil
}

func (v Vsock) check() error {
	return firstOf(inRange("guest_cid", v.GuestCID, minGuestCID, 1<<32-1), checkSocketPath("uds_path", v.UDSPath))
}

func (b Balloon) needs() []Feature {
	if b.FreePageHinting || b.FreePageReporting {
		return []Feature{FreePageHandling}
	}
	return nil
}

func (m MemoryHotplug) check() error {
	block, slot := m.BlockSizeMiB, m.SlotSizeMiB
	if block == 0 {
		block = defaultBlock
	}
	if slot == 0 {
		slot = minSlot
	}
	if err := firstOf(inRange("total_size_mib", m.TotalSizeMiB, 1, maxHotplug),
		inRange("block_size_mib", block, defaultBlock, maxHotplug),
		inRange("slot_size_mib", slot, minSlot, maxHotplug)); err != nil {
		return err
	}
	switch {
	case block&(block-1) != 0:
		return fmt.Errorf("block_size_mib %d: must be a power of two", block)
	case slot%block != 0:
		return fmt.Errorf("slot_size_mib %d: must be a multiple of block_size_mib %d", slot, block)
	case m.TotalSizeMiB%slot != 0:
		return fmt.Errorf("total_size_mib %d: must be a multiple of slot_size_mib %d", m.TotalSizeMiB, slot)
	}
	return nil
}

func (m MemoryHotplug) needs() []Feature { return []Feature{MemoryHotplugging} }

func (m MemoryHotplugPatch) check() error {
	return inRange("requested_size_mib", m.RequestedSizeMiB, 0, maxHotplug)
}

func (m MemoryHotplugPatch) needs() []Feature { return []Feature{MemoryHotplugging} }

func (s Serial) needs() []Feature {
	if s.RateLimiter != nil {
		return []Feature{SerialDevice, SerialRateLimit}
	}
	return []Feature{SerialDevice}
}

func (l Logger) check() error {
	// Firecracker reads the level in any case.
	return oneOf("level", strings.ToLower(l.Level), "off", "trace", "debug", "info", "warn", "warning", "error")
}

func (m Metrics) check() error { return notEmpty("metrics_path", m.MetricsPath) }

func (m Metrics) needs() []Feature {
	if m.EmitID || m.Properties != nil {
		return []Feature{MetricsLabels}
	}
	return nil
}

func (m MMDSConfig) check() error {
	if len(m.NetworkInterfaces) == 0 {
		return fmt.Errorf("network_interfaces: is empty")
	}
	for _, id := range m.NetworkInterfaces {
		if err := checkID("network_interfaces", id); err != nil {
			return err
		}
	}
	if m.IPv4Address != "" {
		a, err := netip.ParseAddr(m.IPv4Address)
		lo, hi := netip.AddrFrom4([4]byte{169, 254, 1, 0}), netip.AddrFrom4([4]byte{169, 254, 254, 255})
		if err != nil || a.Less(lo) || hi.Less(a) {
			return fmt.Errorf("ipv4_address %q: must be %s to %s", m.IPv4Address, lo, hi)
		}
	}
	return oneOf("version", m.Version, "V1", "V2")
}

func (m MMDSConfig) needs() []Feature {
	if m.IMDSCompat {
		return []Feature{IMDSCompat}
	}
	return nil
}

func (v VMPatch) check() error {
	return firstOf(notEmpty("state", string(v.State)), oneOf("state", string(v.State), string(Paused), string(Resumed)))
}

func (s SnapshotCreate) check() error {
	return firstOf(notEmpty("snapshot_path", s.SnapshotPath), notEmpty("mem_file_path", s.MemFilePath),
		oneOf("snapshot_type", s.SnapshotType, "Full", "Diff"))
}

func (s SnapshotLoad) check() error {
	err := firstOf(notEmpty("snapshot_path", s.SnapshotPath),
		notEmpty("backend_path", s.MemBackend.BackendPath), notEmpty("backend_type", s.MemBackend.BackendType),
		oneOf("backend_type", s.MemBackend.BackendType, "File", "Uffd"),
		oneOf("huge_pages", s.HugePages, "Snapshot", "None", "Transparent", "2M"))
	for _, o := range s.NetworkOverrides {
		err = firstOf(err, checkID("iface_id", o.IfaceID), checkHostDev(o.HostDevName))
	}
	if s.VsockOverride != nil {
		err = firstOf(err, checkSocketPath("uds_path", s.VsockOverride.UDSPath))
	}
	return err
}

func (s SnapshotLoad) needs() []Feature {
	var f []Feature
	if len(s.NetworkOverrides) > 0 {
		f = append(f, NetworkOverrides)
	}
	if s.TrackDirtyPages {
		f = append(f, LoadDirtyTracking)
	}
	if s.ClockRealtime {
		f = append(f, ClockRealtime)
	}
	if s.VsockOverride != nil {
		f = append(f, VsockOverriding)
	}
	if s.HugePages != "" {
		f = append(f, LoadHugePages)
	}
	return f
}
