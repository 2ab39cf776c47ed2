package manager

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

// newSpec is the OCI runtime spec of a container that has been checked, with
// docker's defaults. Pure.
func newSpec(c *state.Config) *api.Spec {
	h := c.HostConfig
	caps, _ := capabilities(h) // none, if the record was spoilt since
	sec, _ := confine(h)
	s := &api.Spec{
		Version: specs.Version,
		Process: &api.SpecProcess{
			Terminal: c.TTY, Args: c.Args, Env: c.Env, Cwd: either(c.Workdir, "/"),
			// The workload gets its ambient set cleared: only root keeps them.
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      rlimits(h.Ulimits), NoNewPrivileges: sec.noNewPrivileges,
		},
		Root:        &specs.Root{Path: "rootfs", Readonly: c.ReadOnly},
		Hostname:    c.Hostname,
		Domainname:  c.Domainname,
		Annotations: c.Annotations,
		Mounts:      mounts(c, sec),
		Linux: &api.SpecLinux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
			},
			Sysctl:    h.Sysctls,
			Resources: containerLimits(c),
		},
	}
	if !h.Privileged && !h.UnmaskPaths {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = MaskedPaths(), ReadonlyPaths()
	}
	if h.OOMScoreAdj != 0 {
		s.Process.OOMScoreAdj = &h.OOMScoreAdj
	}
	return s
}

// MaskedPaths are hidden from a container, unless it is told otherwise.
func MaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// ReadonlyPaths cannot be written by a container, unless it is told otherwise.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// mounts are docker's, then those of --tmpfs and --mount, the outer ones first.
func mounts(c *state.Config, sec confinement) []specs.Mount {
	noexec := []string{"nosuid", "noexec", "nodev"}
	mount := func(dst, typ string, opts ...string) specs.Mount {
		return specs.Mount{Destination: dst, Type: typ, Source: typ, Options: opts}
	}
	guarded := func(writable bool) []string {
		if writable {
			return noexec
		}
		return append(slices.Clone(noexec), "ro")
	}
	shm := cmp.Or(c.HostConfig.ShmSize, DefaultShmSize)
	all := []specs.Mount{
		mount("/proc", "proc", noexec...),
		mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
		mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
		mount("/sys", "sysfs", guarded(c.HostConfig.Privileged)...),
		mount("/sys/fs/cgroup", "cgroup", guarded(sec.writableCgroups)...),
		mount("/dev/mqueue", "mqueue", noexec...),
		mount("/dev/shm", "tmpfs", append(slices.Clone(noexec), "mode=1777", fmt.Sprintf("size=%d", shm))...),
	}
	var own []specs.Mount
	for _, t := range c.Tmpfs {
		own = append(own, tmpfs(t))
	}
	for _, m := range c.HostConfig.Mounts {
		own = append(own, tmpfs(m.Target+":"+tmpfsOptions(m)))
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/"))
	})
	// One of the user's replaces ours at the same place.
	all = slices.DeleteFunc(all, func(m specs.Mount) bool {
		return slices.ContainsFunc(own, func(o specs.Mount) bool { return o.Destination == m.Destination })
	})
	return append(all, own...)
}

// tmpfs is the mount of a --tmpfs PATH[:OPTIONS].
func tmpfs(arg string) specs.Mount {
	dst, opts, _ := strings.Cut(arg, ":")
	m := specs.Mount{Destination: path.Clean(dst), Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec"}}
	for _, o := range strings.Split(opts, ",") {
		if o != "" {
			m.Options = append(m.Options, o)
		}
	}
	return m
}

// tmpfsOptions are those of a --mount in the words of --tmpfs.
func tmpfsOptions(m state.Mount) string {
	var opts []string
	if m.ReadOnly {
		opts = append(opts, "ro")
	}
	if m.SizeBytes > 0 {
		opts = append(opts, fmt.Sprintf("size=%d", m.SizeBytes))
	}
	if m.Mode != 0 {
		opts = append(opts, fmt.Sprintf("mode=%o", m.Mode))
	}
	return strings.Join(opts, ",")
}

// rlimits are the user's, over the one that docker's daemon has by itself.
func rlimits(ulimits []state.Ulimit) []specs.POSIXRlimit {
	out := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288}}
	for _, u := range ulimits {
		// A negative number is a very large one: -1 is the kernel's "unlimited".
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out
}

// limits are the container's own in its VM.
func limits(h state.HostConfig) *api.Resources {
	r := &api.Resources{CPU: &specs.LinuxCPU{Cpus: h.CPUSetCPUs}}
	if h.PidsLimit != 0 {
		r.Pids = &specs.LinuxPids{Limit: &h.PidsLimit}
	}
	if h.MemoryReservation > 0 {
		r.Memory = &specs.LinuxMemory{Reservation: &h.MemoryReservation}
	}
	if h.CPUShares > 0 {
		shares := uint64(h.CPUShares)
		r.CPU.Shares = &shares
	}
	if h.CPUPeriod > 0 {
		period := uint64(h.CPUPeriod)
		r.CPU.Period = &period
	}
	if h.CPUQuota != 0 {
		r.CPU.Quota = &h.CPUQuota
	}
	if h.NanoCPUs > 0 {
		period := uint64(cpuPeriod)
		r.CPU.Period, r.CPU.Quota = &period, nanoQuota(h.NanoCPUs)
	}
	return r
}

// sysctls are set in every guest: what docker sets for a container's network, and
// forwarding, which that has from the host of an engine.
func sysctls() map[string]string {
	return map[string]string{
		"net.ipv4.ip_forward":                 "1",
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
}

// startRequest is what the agent is told about a container. Pure.
func startRequest(c *state.Config, kernelRelease string, nics []network.NIC, resolver network.Resolver) (api.StartRequest, error) {
	h := c.HostConfig
	caps, err := capabilities(h)
	if err != nil {
		return api.StartRequest{}, err
	}
	sec, err := confine(h)
	if err != nil {
		return api.StartRequest{}, err
	}
	filter, err := sec.filter(caps, kernelRelease)
	if err != nil {
		return api.StartRequest{}, err
	}
	lines, err := hosts(c, nics)
	if err != nil {
		return api.StartRequest{}, err
	}
	return api.StartRequest{
		ID: c.ID, Spec: newSpec(c), User: c.User, GroupAdd: c.GroupAdd,
		Hostname: c.Hostname, Domainname: c.Domainname, Hosts: lines, DNS: dns(h, nics, resolver),
		Init: c.Init, Stdin: c.Stdin, Seccomp: filter, AllDevices: h.Privileged,
		CACertificates: h.CACertificates,
	}, nil
}
