package main

// dockerFlag is a flag that docker has and MicroPod refuses.
type dockerFlag struct {
	name, shorthand string
	takesValue      bool
	// neutral is the value that asks for nothing, and is accepted.
	neutral string
	// why is a reason that will stay, "" for "not yet".
	why string
}

func valued(name, shorthand string) dockerFlag {
	return dockerFlag{name: name, shorthand: shorthand, takesValue: true}
}

func boolean(name string) dockerFlag { return dockerFlag{name: name, neutral: "false"} }

// noWeight is why disks have no weights: those of docker rank the containers of
// one kernel against each other.
const noWeight = "a VM's disks are its own, with nobody to be weighed against: limit them with --device-read-bps and the like"

// unsupportedCreateFlags are those of `docker run` and `docker create`.
func unsupportedCreateFlags() []dockerFlag {
	flags := []dockerFlag{
		boolean("oom-kill-disable"), boolean("use-api-socket"),
		{name: "disable-content-trust", neutral: "true"},
		valued("volume", "v"),
		{name: "blkio-weight", takesValue: true, neutral: "0", why: noWeight},
		{name: "blkio-weight-device", takesValue: true, why: noWeight},
	}
	for _, name := range []string{
		"cgroup-parent", "cpu-count", "cpu-percent", "cpu-rt-period", "cpu-rt-runtime",
		"cpuset-mems", "device", "device-cgroup-rule",
		"gpus",
		"io-maxbandwidth", "io-maxiops", "isolation", "kernel-memory", "link", "link-local-ip",
		"memory-swappiness", "runtime", "volume-driver", "volumes-from",
	} {
		flags = append(flags, valued(name, ""))
	}
	for i, f := range flags {
		if why := neverFlags()[f.name]; why != "" {
			flags[i].why = why
		}
	}
	return flags
}

// neverFlags are flags that mean nothing here, and why.
func neverFlags() map[string]string {
	const (
		windows = "it is for Windows containers"
		devices = "the host's devices are not in the microVM"
		v2      = "it is of cgroup v1, and guests have v2"
	)
	return map[string]string{
		"cgroup-parent": "the container's cgroup is in its guest",
		"cpu-count":     windows, "cpu-percent": windows, "io-maxbandwidth": windows, "io-maxiops": windows, "isolation": windows,
		"cpu-rt-period": v2, "cpu-rt-runtime": v2, "kernel-memory": v2, "oom-kill-disable": v2,
		"cpuset-mems": "a guest has one memory node",
		"device":      devices, "device-cgroup-rule": devices, "gpus": devices,
		"link":              noLinks,
		"memory-swappiness": "a guest has no swap",
		"runtime":           "the runtime is the microVM (--vmm chooses)",
	}
}

// unsupportedVerbs are docker's commands that MicroPod does not have; their
// names are refused, so that nobody takes them for a typing error.
func unsupportedVerbs() []string {
	return []string{
		"build", "builder", "buildx", "checkpoint", "compose", "config", "context",
		"node", "plugin", "prune", "search", "secret", "service", "stack", "swarm", "trust",
		"volume",
	}
}
