package manager

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/logdriver"
	"github.com/micropod/micropod/pkg/state"
)

// HostConfig, Ulimit and Mount are options of a container that are kept as they
// were given.
type (
	HostConfig     = state.HostConfig
	LogConfig      = state.LogConfig
	Ulimit         = state.Ulimit
	Mount          = state.Mount
	ThrottleDevice = state.ThrottleDevice

	// RestartPolicy says when a container that has ended is started again.
	RestartPolicy = state.RestartPolicy
)

// DefaultShmSize is the size of /dev/shm in bytes, unless told otherwise.
const DefaultShmSize = 64 << 20

// Docker's bounds of --cpu-period and --cpu-quota, in microseconds.
const (
	minCPUPeriod = 1000
	maxCPUPeriod = 1000000
	cpuPeriod    = 100000
)

// checkHostConfig refuses what no guest could do, in docker's words where it has
// some. c is the container but for its size in memory and processors, which a
// quota can raise.
func checkHostConfig(c *state.Config) error {
	h := c.HostConfig
	caps, err := capabilities(h)
	if err != nil {
		return err
	}
	sec, err := confine(h)
	if err != nil {
		return err
	}
	if _, err := sec.filter(caps, ""); err != nil {
		return err
	}
	if h.OOMScoreAdj < -1000 || h.OOMScoreAdj > 1000 {
		return fmt.Errorf("%w: invalid value %d, range for oom score adj is [-1000, 1000]", ErrInvalid, h.OOMScoreAdj)
	}
	if err := checkNanoCPUs(h); err != nil {
		return err
	}
	if err := checkRestart(h.RestartPolicy, c.AutoRemove); err != nil {
		return err
	}
	if h.ShmSize < 0 {
		return fmt.Errorf("%w: SHM size can not be less than 0", ErrInvalid)
	}
	if err := checkNetwork(h); err != nil {
		return err
	}
	if err := logdriver.Check(newLogSpec(c)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return checkTmpfs(c.Tmpfs, h.Mounts)
}

// nanoCPUs is a number of processors as docker keeps it.
func nanoCPUs(cpus float64) int64 { return int64(math.Round(cpus * 1e9)) }

// nanoQuota is the quota of the default period that gives so much of processors.
func nanoQuota(nano int64) *int64 {
	quota := nano * cpuPeriod / 1e9
	return &quota
}

// checkNanoCPUs refuses two ways to say the same.
func checkNanoCPUs(h HostConfig) error {
	switch {
	case h.NanoCPUs > 0 && h.CPUPeriod > 0:
		return fmt.Errorf("%w: conflicting options: Nano CPUs and CPU Period cannot both be set", ErrInvalid)
	case h.NanoCPUs > 0 && h.CPUQuota > 0:
		return fmt.Errorf("%w: conflicting options: Nano CPUs and CPU Quota cannot both be set", ErrInvalid)
	}
	return nil
}

// checkRestart checks a restart policy, in docker's words.
func checkRestart(p RestartPolicy, autoRemove bool) error {
	n := p.MaximumRetryCount
	switch p.Name {
	case "", state.RestartNo, state.RestartAlways, state.RestartUnlessStopped:
		if n != 0 {
			return fmt.Errorf("%w: invalid restart policy: maximum retry count can only be used with 'on-failure'", ErrInvalid)
		}
	case state.RestartOnFailure:
		if n < 0 {
			return fmt.Errorf("%w: invalid restart policy: maximum retry count cannot be negative", ErrInvalid)
		}
	default:
		return fmt.Errorf("%w: invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", ErrInvalid, p.Name)
	}
	if autoRemove && !p.None() {
		return fmt.Errorf("%w: can't create 'AutoRemove' container with restart policy", ErrInvalid)
	}
	return nil
}

// checkTmpfs checks places and options of every tmpfs.
func checkTmpfs(tmpfs []string, mounts []Mount) error {
	seen := map[string]bool{}
	place := func(dst string) error {
		switch dst = path.Clean(dst); {
		case !path.IsAbs(dst):
			return fmt.Errorf("%w: invalid mount path: '%s' mount path must be absolute", ErrInvalid, dst)
		case dst == "/":
			return fmt.Errorf("%w: invalid specification: destination can't be '/'", ErrInvalid)
		case seen[dst]:
			return fmt.Errorf("%w: duplicate mount point: %s", ErrInvalid, dst)
		}
		seen[dst] = true
		return nil
	}
	for _, t := range tmpfs {
		dst, opts, _ := strings.Cut(t, ":")
		if err := place(dst); err != nil {
			return err
		}
		if err := checkTmpfsOptions(opts); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if err := place(m.Target); err != nil {
			return err
		}
	}
	return nil
}

// checkTmpfsOptions takes those that docker takes.
func checkTmpfsOptions(opts string) error {
	if opts == "" {
		return nil
	}
	for _, o := range strings.Split(opts, ",") {
		key, value, ok := strings.Cut(o, "=")
		valued := []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}
		if ok && value != "" && slices.Contains(valued, key) || !ok && slices.Contains(tmpfsFlags(), key) {
			continue
		}
		return fmt.Errorf("%w: invalid tmpfs option %q", ErrInvalid, o)
	}
	return nil
}

func tmpfsFlags() []string {
	return []string{
		"", "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "remount",
		"mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
		"private", "rprivate",
	}
}

// checkShares checks the container's shares of its VM, whose size is known by now.
func checkShares(c *state.Config) error {
	h := c.HostConfig
	switch {
	case h.CPUShares < 0:
		return fmt.Errorf("%w: invalid CPU shares (%d): value must be a positive integer", ErrInvalid, h.CPUShares)
	case h.CPUPeriod != 0 && (h.CPUPeriod < minCPUPeriod || h.CPUPeriod > maxCPUPeriod):
		return fmt.Errorf("%w: CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)", ErrInvalid)
	case h.CPUQuota > 0 && h.CPUQuota < minCPUPeriod:
		return fmt.Errorf("%w: CPU cfs quota can not be less than 1ms (i.e. 1000)", ErrInvalid)
	case h.MemoryReservation < 0 || c.MemoryMiB > 0 && h.MemoryReservation > int64(c.MemoryMiB)<<20:
		return fmt.Errorf("%w: minimum memory limit can not be less than memory reservation limit", ErrInvalid)
	}
	last, err := lastCPU(h.CPUSetCPUs)
	if err != nil {
		return fmt.Errorf("%w: invalid value %s for cpuset cpus", ErrInvalid, h.CPUSetCPUs)
	}
	if last >= c.CPUs && !shares(h) { // of another one's VM the start tells
		return fmt.Errorf("%w: requested CPUs are not available - requested %s, available: 0-%d (see --cpus)", ErrInvalid, h.CPUSetCPUs, c.CPUs-1)
	}
	return nil
}

// lastCPU is the highest number in a list such as 0-2,4; -1 for an empty one.
func lastCPU(list string) (int, error) {
	last := -1
	if list == "" {
		return last, nil
	}
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return 0, err
		}
		b, err := strconv.ParseUint(to, 10, 16)
		if err != nil {
			return 0, err
		}
		if a > b {
			return 0, fmt.Errorf("%s is no range", part)
		}
		last = max(last, int(b))
	}
	return last, nil
}

// quotaCPUs is how many processors a quota speaks of: a VM has at least those.
func quotaCPUs(h state.HostConfig) float64 {
	period := h.CPUPeriod
	if period <= 0 {
		period = cpuPeriod
	}
	return float64(max(0, h.CPUQuota)) / float64(period)
}
