package firecracker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Version is a Firecracker release, for example 1.16.1 or 1.17.0-dev.
type Version struct {
	Major, Minor, Patch int
	// Pre is what follows the dash of a pre-release, else "".
	Pre string
}

var errVersion = errors.New("not a Firecracker version")

// minimum is the oldest release whose API the driver speaks.
func minimum() Version { return Version{Major: 1, Minor: 12} }

// recommended is the release line to move to.
func recommended() Version { return Version{Major: 1, Minor: 16} }

// ParseVersion reads "1.16.1", "v1.16.1", "1.17.0-dev" or the first line of
// `firecracker --version` and `jailer --version`. The text may come from any program: it is bounded.
func ParseVersion(s string) (Version, error) {
	line, _, _ := strings.Cut(s, "\n")
	line = strings.TrimSpace(line)
	line = strings.TrimPrefix(line, "Firecracker ")
	line = strings.TrimPrefix(line, "Jailer ")
	line = strings.TrimPrefix(line, "v")
	if len(line) > 64 {
		return Version{}, fmt.Errorf("%w: %d characters", errVersion, len(line))
	}
	numbers, pre, _ := strings.Cut(line, "-")
	parts := strings.Split(numbers, ".")
	if len(parts) != 3 || !plain(pre) {
		return Version{}, fmt.Errorf("%w: %q", errVersion, line)
	}
	v := Version{Pre: pre}
	for i, field := range []*int{&v.Major, &v.Minor, &v.Patch} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("%w: %q", errVersion, line)
		}
		*field = int(n)
	}
	return v, nil
}

// plain reports whether s holds nothing but letters, digits, '-' and '.'.
func plain(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == ""
}

// String gives the version without a leading v.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Pre != "" {
		s += "-" + v.Pre
	}
	return s
}

// line names the release line: "1.16".
func (v Version) line() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// atLeast compares releases. A pre-release counts as its release: a
// development build has the features of the release that it leads to.
func (v Version) atLeast(o Version) bool {
	if v.Major != o.Major {
		return v.Major > o.Major
	}
	if v.Minor != o.Minor {
		return v.Minor > o.Minor
	}
	return v.Patch >= o.Patch
}

// Supported returns nil when the driver can speak to v, else why not.
func (v Version) Supported() error {
	switch {
	case v.Major > 1:
		return fmt.Errorf("firecracker %s has another API than 1.x", v)
	case !v.atLeast(minimum()):
		return fmt.Errorf("firecracker %s is too old: %s is the oldest that works", v, minimum())
	}
	return nil
}

// Warnings lists, one line each, the published holes of v. It is empty for a
// release at or above the secure floor: 1.14.4 in the 1.14 line, else 1.15.1.
func (v Version) Warnings() []string {
	var w []string
	below := func(minor, patch int) bool { return !v.atLeast(Version{Major: 1, Minor: minor, Patch: patch}) }
	if (!below(13, 0) && below(14, 4)) || (v.Minor == 15 && below(15, 1)) {
		w = append(w, "CVE-2026-5747: a guest's root can write outside the virtio-PCI device's memory (fixed in 1.14.4 and 1.15.1; MicroPod uses no PCI)")
	}
	if below(13, 2) || (v.Minor == 14 && below(14, 1)) {
		w = append(w, "CVE-2026-1386: the jailer follows a planted symbolic link (fixed in 1.13.2 and 1.14.1; MicroPod lets nobody plant one)")
	}
	if below(14, 4) || (v.Minor == 15 && below(15, 1)) {
		w = append(w, "a guest can grow the VMM's memory through the entropy device (fixed in 1.14.4 and 1.15.1)")
	}
	return w
}

// Feature is a part of the API that not every supported release has.
type Feature int

// Features, in the order in which releases brought them.
const (
	NetworkOverrides  Feature = iota + 1 // snapshot load: network_overrides
	LoadDirtyTracking                    // snapshot load: track_dirty_pages
	IMDSCompat                           // mmds config: imds_compat
	PCI                                  // --enable-pci
	SerialDevice                         // PUT /serial
	PmemDevice                           // PUT /pmem
	MemoryHotplugging                    // /hotplug/memory
	FreePageHandling                     // balloon hinting and reporting
	ClockRealtime                        // snapshot load: clock_realtime
	NetworkMTU                           // network interface: mtu
	VsockOverriding                      // snapshot load: vsock_override
	SerialRateLimit                      // serial: rate_limiter
	PmemRateLimit                        // pmem: rate_limiter, PATCH
	DeviceHotplug                        // PUT after boot, DELETE
	MetricsLabels                        // metrics: emit_id, properties
	TransparentHuge                      // machine config: huge_pages Transparent
	LoadHugePages                        // snapshot load: huge_pages
	BzImage                              // kernels in bzImage form
)

// entry is one row of the features table: the name for errors, and the first
// release that has it.
func (f Feature) entry() (name string, since Version) {
	at := func(minor, patch int) Version { return Version{Major: 1, Minor: minor, Patch: patch} }
	switch f {
	case NetworkOverrides:
		return "network_overrides", at(12, 0)
	case LoadDirtyTracking:
		return "track_dirty_pages on load", at(13, 0)
	case IMDSCompat:
		return "imds_compat", at(13, 0)
	case PCI:
		return "virtio over PCI", at(13, 0)
	case SerialDevice:
		return "the serial device", at(14, 0)
	case PmemDevice:
		return "pmem devices", at(14, 0)
	case MemoryHotplugging:
		return "memory hotplug", at(14, 0)
	case FreePageHandling:
		return "free page hinting and reporting", at(14, 0)
	case ClockRealtime:
		return "clock_realtime", at(14, 4)
	case NetworkMTU:
		return "mtu", at(16, 0)
	case VsockOverriding:
		return "vsock_override", at(16, 0)
	case SerialRateLimit:
		return "rate_limiter of the serial device", at(16, 0)
	case PmemRateLimit:
		return "rate_limiter of pmem devices", at(16, 0)
	case DeviceHotplug:
		return "device hotplug", at(16, 0)
	case MetricsLabels:
		return "emit_id and properties of the metrics", at(17, 0)
	case TransparentHuge:
		return "transparent huge pages", at(17, 0)
	case LoadHugePages:
		return "huge_pages on load", at(17, 0)
	case BzImage:
		return "bzImage kernels", at(17, 0)
	}
	return fmt.Sprintf("feature %d", int(f)), Version{Major: 1 << 16}
}

// canKeep returns nil when VMs of so many MiB can go on from snapshots of v, else
// why not.
func (v Version) canKeep(memoryMiB int) error {
	switch {
	case !v.atLeast(Version{Major: 1, Minor: 14, Patch: 2}) && memoryMiB > 3072:
		return fmt.Errorf("firecracker %s writes a wrong snapshot of a guest with more than 3 GiB: 1.14.2 does not", v)
	case v.line() == "1.16" && v.Patch == 0:
		return fmt.Errorf("firecracker %s leaves the connections of a guest that goes on from a snapshot: 1.16.1 does not", v)
	}
	return nil
}

// Has reports whether v has the feature.
func (v Version) Has(f Feature) bool {
	// 1.14.4 and 1.15.1 were released together, after 1.15.0.
	if f == ClockRealtime && v.Minor == 15 && v.Patch == 0 {
		return false
	}
	_, since := f.entry()
	return v.atLeast(since)
}

// require returns an error that names the feature v lacks.
func (v Version) require(f Feature) error {
	if v.Has(f) {
		return nil
	}
	name, since := f.entry()
	return fmt.Errorf("%s: needs firecracker %s or newer, this is %s", name, since, v)
}
