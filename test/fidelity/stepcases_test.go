package fidelity

// refusedSteps are command lines that start nothing.
func refusedSteps() []step {
	run := func(name string, args ...string) step {
		return step{name: name, args: append([]string{"run", "--rm", "--network", "none"}, args...)}
	}
	plain := func(name string, flags ...string) step {
		return run(name, append(flags, imageName("plain"), "/probe", "exit")...)
	}
	return []step{
		plain("refused: relative working directory", "-w", "tmp"),
		run("refused: no command", "--entrypoint", "", imageName("entrypoint")),
		plain("refused: env file with a blank in a name", "--env-file", "bad-env"),
		plain("refused: env file that is missing", "--env-file", "missing"),
		plain("refused: variable without a name", "-e", "=x"),
		plain("refused: unknown ulimit", "--ulimit", "nosuch=1"),
		plain("refused: soft ulimit above the hard one", "--ulimit", "nofile=9:8"),
		plain("refused: unknown capability", "--cap-add", "NOSUCH"),
		plain("refused: tmpfs that is relative", "--tmpfs", "x"),
		plain("refused: unknown tmpfs option", "--tmpfs", "/x:huge=1"),
		plain("refused: --rm with --restart", "--restart", "always"),
		plain("refused: unknown security option", "--security-opt", "nosuch=1"),
		plain("refused: bad seccomp profile", "--security-opt", "seccomp=bad.json"),
		plain("refused: seccomp profile that is missing", "--security-opt", "seccomp=missing.json"),
		plain("refused: unknown flag", "--nosuch"),
		plain("refused: bad name", "--name", "a/b"),
		plain("refused: bad host for --add-host", "--add-host", "x:y"),
		plain("refused: bad address for --dns", "--dns", "x"),
		plain("refused: bad stop signal", "--stop-signal", "NOSUCH"),
		plain("refused: bad memory", "-m", "much"),
		plain("refused: OOM score out of range", "--oom-score-adj", "2000"),
		plain("refused: two mounts at one place", "--tmpfs", "/x", "--mount", "type=tmpfs,dst=/x"),
		plain("refused: unknown type of mount", "--mount", "type=nosuch,dst=/x"),
		{name: "refused: image that is not there", args: []string{"run", "--pull", "never", "nosuch:1"}},
		{name: "refused: bad reference", args: []string{"run", "--pull", "never", "UPPER:1"}},
		{name: "refused: run without an image", args: []string{"run"}},
		{name: "refused: exec without a command", args: []string{"exec", "x"}},
		{name: "refused: exec in nothing", args: []string{"exec", "nosuch", "x"}},
		{name: "refused: stop of nothing", args: []string{"stop", "nosuch"}},
		{name: "refused: logs of nothing", args: []string{"logs", "nosuch"}},
		{name: "refused: inspect of nothing", args: []string{"inspect", "nosuch"}},
		{name: "refused: unknown command", args: []string{"nosuch"}},
	}
}

// inspectSteps compare what create makes of an image and flags, by docker's
// names. Nothing is started.
func inspectSteps() []step {
	inspect := func(container, field string) step {
		return step{name: "inspect " + container + " " + field, row: "inspect: " + field, args: []string{"inspect", "-f", "{{json ." + field + "}}", container}}
	}
	steps := []step{
		{name: "create an image's defaults", row: "create", args: []string{"create", "--name", "fid-image", "--network", "none", imageName("full")}},
		{name: "create with flags", row: "create", args: []string{
			"create", "--name", "fid-flags", "--network", "none", "-h", "box", "--domainname", "example.org", "-u", "0", "-e", "B=2", "-l", "a=2", "-l", "c",
			"-w", "/w", "--entrypoint", "/bin/sh", "-it", "--rm", "--init", "--read-only", "--cap-add", "CAP_SYS_TIME", "--cap-drop", "CAP_MKNOD",
			"--security-opt", "no-new-privileges", "--ulimit", "nofile=5:6", "--pids-limit", "9", "--oom-score-adj", "3", "--shm-size", "3m",
			"--cpu-shares", "77", "--cpu-quota", "60000", "--cpu-period", "70000", "--sysctl", "kernel.shmmni=5", "--dns", "192.0.2.1",
			"--dns-search", "example.org", "--dns-opt", "ndots:2", "--add-host", "db:192.0.2.7", "--tmpfs", "/t:size=1m",
			"--mount", "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=700", "--expose", "99", "--group-add", "7", "--stop-signal", "INT", "--stop-timeout", "4",
			"-m", "300m", "--memory-reservation", "64m", imageName("full"), "-c", "true"}},
	}
	for _, container := range []string{"fid-image", "fid-flags"} {
		for _, field := range []string{
			"Name", "Path", "Args", "Config.User", "Config.Env", "Config.Cmd", "Config.Entrypoint", "Config.WorkingDir", "Config.Labels",
			"Config.ExposedPorts", "Config.StopSignal", "Config.Tty", "Config.OpenStdin", "Config.Image", "Config.Domainname",
			"State.Status", "State.ExitCode",
			"HostConfig.AutoRemove", "HostConfig.CapAdd", "HostConfig.CapDrop", "HostConfig.SecurityOpt", "HostConfig.Privileged", "HostConfig.ReadonlyRootfs",
			"HostConfig.Ulimits", "HostConfig.PidsLimit", "HostConfig.OomScoreAdj", "HostConfig.ShmSize", "HostConfig.CpuShares", "HostConfig.CpuQuota",
			"HostConfig.CpuPeriod", "HostConfig.NanoCpus", "HostConfig.MemoryReservation", "HostConfig.Dns", "HostConfig.DnsSearch", "HostConfig.DnsOptions",
			"HostConfig.ExtraHosts", "HostConfig.GroupAdd", "HostConfig.MaskedPaths", "HostConfig.ReadonlyPaths", "HostConfig.IpcMode", "HostConfig.PidMode",
		} {
			steps = append(steps, inspect(container, field))
		}
	}
	for _, field := range []string{"Config.Hostname", "Config.StopTimeout", "HostConfig.Sysctls", "HostConfig.Tmpfs", "HostConfig.Mounts", "HostConfig.Init", "HostConfig.Memory"} {
		steps = append(steps, inspect("fid-flags", field))
	}
	image := func(field string) step {
		return step{name: "image inspect " + field, args: []string{"image", "inspect", "-f", "{{json ." + field + "}}", imageName("full")}}
	}
	for _, field := range []string{"Architecture", "Os", "Config.User", "Config.Env", "Config.Cmd", "Config.Entrypoint", "Config.WorkingDir", "Config.Labels", "Config.ExposedPorts", "Config.StopSignal", "RootFS", "RepoTags", "Created"} {
		steps = append(steps, image(field))
	}
	steps = append(steps,
		step{name: "history", args: []string{"history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", imageName("full")}},
		step{name: "create with a name that is taken", args: []string{"create", "--name", "fid-image", "--network", "none", imageName("full")}},
		step{name: "port of a created container", args: []string{"port", "fid-image"}},
		step{name: "logs of a created container", args: []string{"logs", "fid-image"}},
		step{name: "ps of created containers", args: []string{"ps", "-a", "--filter", "name=fid-image", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.State}} {{.Label \"a\"}}"}},
		step{name: "rename", args: []string{"rename", "fid-image", "fid-other"}},
		step{name: "rm of two", args: []string{"rm", "fid-other", "fid-flags"}},
	)
	return steps
}
