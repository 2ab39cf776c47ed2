package main

// dockerFlag is a flag that docker has and MicroPod refuses.
type dockerFlag struct {
	name, shorthand string
	takesValue      bool
	// neutral is the value that asks for nothing, and is accepted.
	neutral string
}

func valued(name, shorthand string) dockerFlag {
	return dockerFlag{name: name, shorthand: shorthand, takesValue: true}
}

func boolean(name string) dockerFlag { return dockerFlag{name: name, neutral: "false"} }

// unsupportedCreateFlags are those of `docker run` and `docker create`.
func unsupportedCreateFlags() []dockerFlag {
	flags := []dockerFlag{
		boolean("no-healthcheck"), boolean("oom-kill-disable"), boolean("privileged"), boolean("use-api-socket"),
		{name: "disable-content-trust", neutral: "true"},
		{name: "publish-all", shorthand: "P", neutral: "false"},
		{name: "network", takesValue: true, neutral: "none"},
		{name: "net", takesValue: true, neutral: "none"},
		valued("cpu-shares", "c"), valued("publish", "p"), valued("volume", "v"),
	}
	for _, name := range []string{
		"add-host", "blkio-weight", "blkio-weight-device", "cap-add", "cap-drop", "cgroup-parent", "cgroupns",
		"cpu-count", "cpu-percent", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpuset-cpus", "cpuset-mems",
		"device", "device-cgroup-rule", "device-read-bps", "device-read-iops", "device-write-bps", "device-write-iops",
		"dns", "dns-opt", "dns-option", "dns-search", "expose", "gpus",
		"health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period", "health-timeout",
		"io-maxbandwidth", "io-maxiops", "ip", "ip6", "ipc", "isolation", "kernel-memory", "link", "link-local-ip",
		"log-driver", "log-opt", "mac-address", "memory-reservation", "memory-swap", "memory-swappiness", "mount",
		"net-alias", "network-alias", "oom-score-adj", "pid", "pids-limit", "runtime", "security-opt", "shm-size", "sysctl",
		"ulimit", "userns", "uts", "volume-driver", "volumes-from",
	} {
		flags = append(flags, valued(name, ""))
	}
	return flags
}

// unsupportedVerbs are docker's commands that MicroPod does not have; their
// names are refused, so that nobody takes them for a typing error.
func unsupportedVerbs() []string {
	return []string{
		"build", "builder", "buildx", "checkpoint", "commit", "compose", "config", "context", "cp", "diff", "events",
		"export", "history", "import", "login", "logout", "manifest", "network", "node", "plugin",
		"prune", "push", "search", "secret", "service", "stack", "stats", "swarm", "system", "tag", "trust",
		"update", "volume",
	}
}
