package fidelity

// execScenarios are about exec: one container each.
func execScenarios() []scenario {
	exec := func(name string, args ...string) step {
		return step{name: name, args: append([]string{"exec"}, args...)}
	}
	probe := func(name string, flags ...string) step {
		return exec(name, append(flags, "NAME", "/probe", "show")...)
	}
	input := exec("exec -i", "-i", "NAME", "/probe", "cat")
	input.stdin = "text\n"
	return []scenario{
		{name: "exec", image: "shell", command: []string{"/probe", "wait"}, cases: []testCase{{name: "container of exec", flags: []string{"-h", "box", "--cap-drop", "MKNOD", "--ulimit", "nofile=200:300"}}}, steps: []step{
			probe("exec"),
			probe("exec -u NAME", "-u", "alice"),
			probe("exec -u UID", "-u", "1000"),
			probe("exec -u UID:GID", "-u", "1000:1000"),
			probe("exec -u NAME:GROUP", "-u", "alice:audio"),
			probe("exec -u, unknown UID", "-u", "4242"),
			probe("exec -u, group alone", "-u", ":29"),
			probe("exec -u, home that is missing", "-u", "homeless"),
			probe("exec -u, home that is empty", "-u", "empty"),
			probe("exec -u, group of digits", "-u", "alice:4321"),
			probe("exec -u, last UID", "-u", "2147483647"),
			exec("exec -u, unknown name", "-u", "nosuch", "NAME", "/probe"),
			exec("exec -u, negative UID", "-u", "-1", "NAME", "/probe"),
			exec("exec -u, UID that is too large", "-u", "2147483648", "NAME", "/probe"),
			probe("exec -w", "-w", "/tmp"),
			exec("exec -w, missing", "-w", "/none", "NAME", "/probe"),
			probe("exec -e", "-e", "A=1", "-e", "GREETING=other", "-e", "PASSED"),
			probe("exec -e that removes", "-e", "GREETING"),
			probe("exec --env-file", "--env-file", "env"),
			probe("exec -t", "-t"),
			probe("exec -t -u", "-t", "-u", "alice"),
			probe("exec --privileged", "--privileged"),
			exec("exec --privileged: system calls", "--privileged", "NAME", "/probe", "calls"),
			exec("exec: system calls", "-u", "alice", "NAME", "/probe", "calls"),
			input,
			exec("exec: exit code", "NAME", "/probe", "exit", "42"),
			exec("exec: signal", "NAME", "/bin/sh", "-c", "kill -KILL $$; echo alive"),
			exec("exec: command that does not exist", "NAME", "nosuch"),
			exec("exec: command that is not executable", "NAME", "/bad/plain"),
			exec("exec: command that is a directory", "NAME", "/bad/dir"),
			exec("exec: command that is no program", "NAME", "/bad/text"),
			exec("exec: signals", "NAME", "/bin/busybox", "grep", "-E", "^(SigBlk|SigIgn|SigCgt):", "/proc/self/status"),
		}},
		{name: "exec in another user's", image: "workdir", command: []string{"/probe", "wait"}, cases: []testCase{{name: "container of exec in another user's", flags: []string{"-t", "--security-opt", "no-new-privileges", "--group-add", "7", "--init"}}}, steps: []step{
			probe("exec: the container's own user, directory and groups"),
			probe("exec -u over the container's", "-u", "0"),
			probe("exec -t in a container with a terminal", "-t"),
		}},
	}
}

// lifeScenarios are about signals and states.
func lifeScenarios() []scenario {
	kill := func(signal, number string) step {
		return step{name: "kill -s " + signal, args: []string{"kill", "-s", signal, "NAME"}, until: "signal " + number + "\n", row: "kill with signals"}
	}
	state := func(row string) step {
		return step{name: row + ", state", row: row, args: []string{"inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.State.Paused}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}.", "NAME"}}
	}
	logs := func(row string) step { return step{name: row + ", log", row: row, args: []string{"logs", "NAME"}} }
	ready := func(row string) step {
		return step{name: row + ", ready", row: row, args: []string{"port", "NAME"}, until: "ready\n"}
	}
	return []scenario{
		{name: "signals", image: "plain", command: []string{"/probe", "wait", "7"}, cases: []testCase{{name: "container of signals"}}, steps: []step{
			ready("kill with signals"), kill("HUP", "1"), kill("SIGUSR1", "10"), kill("RTMIN+3", "37"),
			{name: "pause", args: []string{"pause", "NAME"}},
			state("pause"),
			{name: "exec in a paused container", args: []string{"exec", "NAME", "/probe"}},
			{name: "unpause", args: []string{"unpause", "NAME"}},
			{name: "stop, SIGTERM", args: []string{"stop", "-t", "120", "NAME"}},
			logs("stop, SIGTERM"), state("stop, SIGTERM"),
			{name: "wait for what has ended", args: []string{"wait", "NAME"}},
			{name: "exec in a stopped container", args: []string{"exec", "NAME", "/probe"}},
			{name: "kill of a stopped container", args: []string{"kill", "NAME"}},
			{name: "stop of a stopped container", args: []string{"stop", "NAME"}},
			{name: "pause of a stopped container", args: []string{"pause", "NAME"}},
			{name: "rm", args: []string{"rm", "NAME"}},
			{name: "rm of what is gone", args: []string{"rm", "NAME"}},
			{name: "rm -f of what is gone", args: []string{"rm", "-f", "NAME"}},
		}},
		{name: "stopsignal", image: "stop", cases: []testCase{{name: "container of stopsignal"}}, steps: []step{
			ready("STOPSIGNAL"),
			{name: "STOPSIGNAL", args: []string{"stop", "-t", "120", "NAME"}}, logs("STOPSIGNAL"), state("STOPSIGNAL"),
		}},
		{name: "stop-signal", image: "stop", cases: []testCase{{name: "container of stop-signal", flags: []string{"--stop-signal", "TERM"}}}, steps: []step{
			ready("run --stop-signal"),
			{name: "run --stop-signal", args: []string{"stop", "-t", "120", "NAME"}}, logs("run --stop-signal"), state("run --stop-signal"),
		}},
		{name: "stop-timeout", image: "plain", command: []string{"/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"}, cases: []testCase{{name: "container of stop-timeout", flags: []string{"--stop-timeout", "1"}}}, steps: []step{
			ready("run --stop-timeout"),
			{name: "run --stop-timeout", args: []string{"stop", "NAME"}}, state("run --stop-timeout"),
		}},
		{name: "restarted", image: "plain", command: []string{"/bin/sh", "-c", "test -e /mark && exit 5; echo x >/mark; echo ready; exec /probe wait 3"}, cases: []testCase{{name: "container of restarted"}}, steps: []step{
			ready("kill -9"),
			{name: "kill -9", args: []string{"kill", "NAME"}},
			{name: "kill -9, wait", row: "kill -9", args: []string{"wait", "NAME"}},
			state("kill -9"),
			{name: "start again: the files are there", args: []string{"start", "-a", "NAME"}},
			state("start again: the files are there"),
		}},
	}
}
