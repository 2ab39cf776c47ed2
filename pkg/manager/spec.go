package manager

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
)

// defaultCapabilities is docker's default set, bit mask a80425fb.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
		"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// newSpec is the OCI runtime spec of a container, with docker's defaults. Pure.
func newSpec(c *state.Config) *specs.Spec {
	caps := defaultCapabilities()
	noexec := []string{"nosuid", "noexec", "nodev"}
	mount := func(dst, typ string, opts ...string) specs.Mount {
		return specs.Mount{Destination: dst, Type: typ, Source: typ, Options: opts}
	}
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Terminal: c.TTY, Args: c.Args, Env: c.Env, Cwd: either(c.Workdir, "/"),
			// The workload gets its ambient set cleared: only root keeps them.
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288}},
		},
		Root:        &specs.Root{Path: "rootfs", Readonly: c.ReadOnly},
		Hostname:    c.Hostname,
		Domainname:  c.Domainname,
		Annotations: c.Annotations,
		Mounts: []specs.Mount{
			mount("/proc", "proc", noexec...),
			mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
			mount("/sys", "sysfs", append(noexec, "ro")...),
			mount("/sys/fs/cgroup", "cgroup", append(noexec, "ro")...),
			mount("/dev/mqueue", "mqueue", noexec...),
			mount("/dev/shm", "tmpfs", append(noexec, "mode=1777", "size=67108864")...),
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
				"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
				"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	for _, t := range c.Tmpfs {
		s.Mounts = append(s.Mounts, tmpfs(t))
	}
	return s
}

// tmpfs is the mount of a --tmpfs PATH[:OPTIONS].
func tmpfs(arg string) specs.Mount {
	dst, opts, _ := strings.Cut(arg, ":")
	m := specs.Mount{Destination: dst, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec"}}
	if opts != "" {
		m.Options = append(m.Options, strings.Split(opts, ",")...)
	}
	return m
}

// sysctls are set in every guest, as docker does for a container's network.
func sysctls() map[string]string {
	return map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
}

// startRequest is what the agent is told about a container. Pure.
func startRequest(c *state.Config) api.StartRequest {
	return api.StartRequest{
		ID: c.ID, Spec: newSpec(c), User: c.User, GroupAdd: c.GroupAdd,
		Hostname: c.Hostname, Domainname: c.Domainname, Init: c.Init, Stdin: c.Stdin,
	}
}
