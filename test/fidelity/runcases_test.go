package fidelity

// runScenarios are about flags of run.
func runScenarios() []scenario {
	return []scenario{
		one("run -t", "plain", []string{"-t"}, "stream:stdout=/dev/pts/ .*", "console", "env:TERM", "tty", "dev:.*"),
		one("run -t as another user", "plain", []string{"-t", "-u", "alice"}, "stream:stdin", "reopen:stdout=ok"),
		one("run -i", "plain", []string{"-i"}, "stdout").with("/probe", "cat").input("some\ninput\x00"),
		one("run without -i", "plain", nil, "stdout").with("/probe", "cat").input("ignored"),
		one("run -i as another user", "plain", []string{"-i", "-u", "1000"}, "stream:stdin", "reopen:stderr=ok").input("x"),
		{name: "names", image: "plain", cases: []testCase{
			{name: "run -h", flags: []string{"-h", "box.example.org"}, facts: []string{"hostname=box.example.org", "env:HOSTNAME", "file:/etc/hostname"}},
			{name: "run --add-host", flags: []string{"--add-host", "db:192.0.2.7", "--add-host", "six:2001:db8::1"}, facts: []string{"file:/etc/hosts=(?s).*192.0.2.7.*"}},
			{name: "run --dns", flags: []string{"--dns", "192.0.2.1", "--dns-search", "example.org", "--dns-opt", "ndots:2"}, facts: []string{"file:/etc/resolv.conf"}},
		}},
		one("run --domainname", "plain", []string{"--domainname", "example.org", "-h", "box"}, "domainname=example.org", "hostname", "file:/etc/host.*"),
		one("run --init", "plain", []string{"--init"}, "pid=its own", "ppid", "ancestors", "descriptors"),
		{name: "readonly", image: "plain", cases: []testCase{
			{name: "run --read-only", flags: []string{"--read-only"}, facts: []string{"mount:/.flags=relatime,ro", "mount:/etc.*flags", "mount:/dev.*"}},
			{name: "run --tmpfs", flags: []string{"--tmpfs", "/scratch", "--tmpfs", "/data:size=1m,exec", "--tmpfs", "/tmp:mode=700,uid=7,size=2m,ro"}, facts: []string{"mount:/scratch.*", "mount:/data.*", "mount:/tmp.*"}},
			{name: "run --mount type=tmpfs", flags: []string{"--mount", "type=tmpfs,dst=/made/one,tmpfs-size=2m", "--mount", "type=tmpfs,target=/two,tmpfs-mode=1770,readonly"}, facts: []string{"mount:/made/one.*", "mount:/two.*"}},
		}},
		{name: "mode of a tmpfs", image: "plain", command: []string{"/bin/sh", "-c", "stat -c '%a %u %g %n' /scratch /data /mounted; ls -A /data"}, cases: []testCase{
			{name: "tmpfs over a directory, and over nothing", flags: []string{"--tmpfs", "/scratch", "--tmpfs", "/data", "--mount", "type=tmpfs,dst=/mounted"}, facts: []string{"stdout"}},
		}},
		one("run --cap-add, --cap-drop", "plain", []string{"--cap-add", "NET_ADMIN", "--cap-add", "cap_sys_nice", "--cap-drop", "MKNOD"}, "cap.*", "try.*", "call.*").with("/probe", "calls"),
		one("run --cap-add SYS_ADMIN", "plain", []string{"--cap-add", "SYS_ADMIN"}, "call:.*", "unshare:mount=ok").with("/probe", "calls"),
		one("run --cap-drop ALL", "plain", []string{"--cap-drop", "ALL", "--cap-add", "CHOWN"}, "cap.effective=0000000000000001", "cap.*"),
		one("run --cap-add ALL", "plain", []string{"--cap-add", "ALL", "--cap-drop", "NET_RAW"}, "cap.*"),
		one("run --cap-add as another user", "plain", []string{"--cap-add", "SYS_TIME", "-u", "alice"}, "cap.effective=0000000000000000", "cap.*", "env:HOME"),
		one("system calls of another user", "plain", []string{"-u", "alice"}, "try.*", "call.*").with("/probe", "calls"),
		one("run --privileged", "plain", []string{"--privileged"}, "cap.*", "seccomp=0", "path.*", "mount.*"),
		one("run --privileged: system calls", "plain", []string{"--privileged"}, "call.*", "try.*", "unshare.*").with("/probe", "calls"),
		one("run --security-opt no-new-privileges", "plain", []string{"--security-opt", "no-new-privileges", "-u", "1000:1000"}, "no_new_privs=1", "cap.*", "groups"),
		one("run --security-opt seccomp=unconfined", "plain", []string{"--security-opt", "seccomp=unconfined"}, "seccomp=0", "call.*").with("/probe", "calls"),
		one("run --security-opt seccomp=FILE", "plain", []string{"--security-opt", "seccomp=seccomp.json"}, "seccomp=2", "call:ptrace=ETXTBSY").with("/probe", "calls"),
		one("run --security-opt systempaths=unconfined", "plain", []string{"--security-opt", "systempaths=unconfined"}, "path:.*"),
		{name: "limits", image: "plain", cases: []testCase{
			{name: "run --ulimit", flags: []string{"--ulimit", "nofile=99:111", "--ulimit", "core=0", "--ulimit", "stack=-1"}, facts: []string{"limit:open files=99:111", "limit:core file size=0:0", "limit:stack size"}},
			{name: "run --oom-score-adj", flags: []string{"--oom-score-adj", "321"}, facts: []string{"oom_score_adj=321"}},
			{name: "run --shm-size", flags: []string{"--shm-size", "3m"}, facts: []string{"mount:/dev/shm.options=.*size=3072k.*"}},
			{name: "run --pids-limit", flags: []string{"--pids-limit", "77"}, facts: []string{"cgroup:pids.max=77"}},
			{name: "run --cpu-quota, --cpu-period", flags: []string{"--cpu-quota", "50000", "--cpu-period", "90000"}, facts: []string{"cgroup:cpu.max=50000 90000"}},
			{name: "run --cpuset-cpus", flags: []string{"--cpuset-cpus", "0"}, facts: []string{"cgroup:cpuset.cpus=0"}},
			{name: "run --memory-reservation", flags: []string{"--memory-reservation", "64m"}, facts: []string{"cgroup:memory.low=67108864"}},
			{name: "run --sysctl", flags: []string{"--sysctl", "kernel.shmmni=77", "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "fs.mqueue.msg_max=20"}, facts: []string{"sysctl:kernel/shmmni=77", "sysctl:.*"}},
		}},
		one("run -m", "plain", []string{"-m", "256m"}, "cgroup:memory.max=268435456"),
		one("run --cpus", "plain", []string{"--cpus", "1.5"}, "cgroup:cpu.max=150000 100000"),
		{name: "process", image: "plain", cases: []testCase{
			{name: "run -e", flags: []string{"-e", "A=1", "-e", "PASSED", "-e", "NOT_THERE", "-e", "E=", "-e", "A=2"}, facts: []string{"env", "env:A", "env:E", "env:PASSED"}},
			{name: "run --env-file", flags: []string{"--env-file", "env"}, facts: []string{"env:B", "env:C", "env:D"}},
			{name: "run -u with a group, --group-add", flags: []string{"-u", "1000:audio", "--group-add", "7", "--group-add", "many"}, facts: []string{"uid", "gid", "groups=7 29 1005", "env:HOME"}},
			{name: "run -w", flags: []string{"-w", "/made/here"}, facts: []string{"cwd=/made/here", "cwd.node"}},
		}},
		one("run -u with a group alone", "plain", []string{"-u", ":29"}, "uid=0 .*", "gid=29.*", "groups"),
		one("run -u over USER", "alice", []string{"-u", "0"}, "uid=0 .*", "groups", "env:HOME"),
		one("run -e that removes a variable of the image", "shell", []string{"-e", "GREETING"}, "args", "env").with("/probe", "show"),
	}
}

// exitScenarios are about the end of a container and what cannot start.
func exitScenarios() []scenario {
	return []scenario{
		one("exit code", "plain", nil, "exit=3").with("/probe", "exit", "3"),
		one("PID 1 and its own SIGTERM", "plain", nil, "exit=0", "stdout=alive.*").with("/bin/sh", "-c", "kill -TERM $$; echo alive"),
		one("PID 1 and its own SIGKILL", "plain", nil, "exit=0", "stdout=alive.*").with("/bin/sh", "-c", "kill -KILL $$; echo alive"),
		one("a signal under --init", "plain", []string{"--init"}, "exit=143").with("/bin/sh", "-c", "kill -TERM $$; echo alive"),
		one("SIGKILL under --init", "plain", []string{"--init"}, "exit=137").with("/bin/sh", "-c", "kill -KILL $$; echo alive"),
		one("command that does not exist", "plain", nil, "exit=127").with("nosuch"),
		one("command in no directory", "plain", nil, "exit=127").with("/no/such"),
		one("command that is empty", "plain", nil, "exit=127").with(""),
		one("command that is not executable", "plain", nil, "exit=126").with("/bad/plain"),
		one("command that is a directory", "plain", nil, "exit=126").with("/bad/dir"),
		one("command that is no program", "plain", nil, "exit", "stderr").with("/bad/text").errors(),
		one("command without its interpreter", "plain", nil, "exit").with("/bad/interpreter"),
		one("run -w on a file", "plain", []string{"-w", "/etc/passwd"}, "exit"),
		one("run -u that does not exist", "plain", []string{"-u", "nosuch"}, "exit=125"),
		one("run --group-add that does not exist", "plain", []string{"--group-add", "nosuch"}, "exit"),
	}
}
