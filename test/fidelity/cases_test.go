package fidelity

import "slices"

// scenarios are all of them, the longest first, so that the end is not one
// container that everybody waits for.
func scenarios() []scenario {
	return slices.Concat(execScenarios(), lifeScenarios(), imageScenarios(), runScenarios(), exitScenarios(), plainScenarios())
}

// one is a scenario with one case.
func one(name, image string, flags []string, facts ...string) scenario {
	return scenario{name: name, image: image, cases: []testCase{{name: name, flags: flags, facts: facts}}}
}

func (sc scenario) with(command ...string) scenario {
	sc.command = command
	return sc
}

func (sc scenario) input(text string) scenario {
	sc.stdin = text
	return sc
}

func (sc scenario) errors() scenario {
	sc.stderr = true
	return sc
}

// plainScenarios need no flags: docker's defaults, one row for each kind of fact.
func plainScenarios() []scenario {
	return []scenario{
		{name: "defaults", image: "plain", cases: []testCase{
			{name: "defaults: process", facts: []string{"pid=1", "ppid", "pgid", "sid", "umask=0022", "oom_score_adj", "nice", "exe", "securebits", "dumpable", "child_subreaper", "ancestors", "args", "exit=0"}},
			{name: "defaults: user and groups", facts: []string{"uid=0 0 0 0", "gid", "groups"}},
			{name: "defaults: capabilities, seccomp", facts: []string{`cap\..*=00000000a80425fb`, "no_new_privs=0", "seccomp=2"}},
			{name: "defaults: environment", facts: []string{"env", "env:HOME=/root", "env:HOSTNAME", "env:.*"}},
			{name: "defaults: working directory", facts: []string{"cwd=/", "cwd.node"}},
			{name: "defaults: resource limits", facts: []string{"limit:open files=1024:.*", "limit:.*"}},
			{name: "defaults: streams, descriptors", facts: []string{"stream:stdin=/dev/null.*", "stream:.*", "reopen:stdout=ok", "reopen:.*", "descriptors=0 1 2", "tty", "console"}},
			{name: "defaults: mounts", facts: []string{"mount:/proc.*", "mount:.*", "link:/etc/mtab=/proc/mounts"}},
			{name: "defaults: masked and protected paths", facts: []string{"path:/proc/timer_list=masked", "path:.*"}},
			{name: "defaults: devices", facts: []string{"dev:/dev/null", "dev:.*"}},
			{name: "defaults: names", facts: []string{"hostname", "domainname", "file:/etc/.*"}},
			{name: "defaults: sysctls", facts: []string{"sysctl:net.*", "sysctl:.*"}},
			{name: "defaults: cgroup", facts: []string{"cgroup:.*"}},
			{name: "defaults: network interfaces", facts: []string{"interfaces=lo"}},
		}},
		{name: "calls", image: "plain", command: []string{"/probe", "calls"}, cases: []testCase{
			{name: "defaults: answers to system calls", facts: []string{"call:keyctl=EPERM", "call:.*", "seccomp", "no_new_privs", "exit"}},
			{name: "defaults: namespaces and sockets", facts: []string{"unshare:user=EPERM", "unshare:.*", "socket:.*"}},
			{name: "defaults: what root may do", facts: []string{"try:mknod null=ok", "try:.*"}},
		}},
		one("defaults: signal masks", "plain", nil, "stdout=ShdPnd.*").with("/bin/busybox", "grep", "-E", "^(SigBlk|SigIgn|SigCgt|ShdPnd):", "/proc/self/status"),
		one("defaults: mount table as root", "plain", nil, "stdout").with("/bin/sh", "-c", "ls -ld / /proc /sys /dev /dev/shm /etc /tmp | cut -c 1-10; id"),
		{name: "create and inspect", steps: inspectSteps()},
		{name: "refused", steps: refusedSteps()},
	}
}

// imageScenarios are about what an image says.
func imageScenarios() []scenario {
	files := scenario{name: "files", image: "files", command: []string{"/probe", "walk", "/"}, cases: []testCase{
		{name: "files: whiteouts, opaque directories, replaced files", flags: []string{"-h", "box"}, facts: []string{"walk:/opt/tree.*"}},
		{name: "files: hard links", facts: []string{"walk:/opt/hard.*"}},
		{name: "files: modes, owners, setuid, old times", facts: []string{"walk:/opt/mode.*"}},
		{name: "files: xattrs, file capabilities", facts: []string{"walk:/opt/xattr.*"}},
		{name: "files: devices, FIFOs", facts: []string{"walk:/opt/dev.*"}},
		{name: "files: long and strange names", facts: []string{"walk:/opt/names.*"}},
		{name: "files: sizes, zeros", facts: []string{"walk:/opt/size.*"}},
		{name: "files: nanoseconds, 2128, links to links", facts: []string{"walk:/opt/odd.*"}},
		{name: "files: parents that no layer names", facts: []string{"walk:/opt/implied.*"}},
		{name: "files: the engine's own", facts: []string{"walk:/etc/(hosts|hostname|resolv.conf|mtab).*"}},
		{name: "files: mount points and the root directory", facts: []string{"walk:/", "walk:/(proc|sys|dev)"}},
		{name: "files: all others", facts: []string{"walk:.*", "exit"}},
	}}
	return []scenario{
		files,
		one("ENTRYPOINT and CMD", "entrypoint", nil, `args=.*entrypoint" "from" "cmd \$HOME.*`),
		one("ENTRYPOINT and a command", "entrypoint", nil, "args").with("a command", ""),
		one("ENTRYPOINT replaced, which drops CMD", "entrypoint", []string{"--entrypoint", "/probe"}, "args"),
		one("CMD in shell form, ENV with blanks and empty", "shell", nil, `args=.*hello  world=1" "\[\].*`),
		one("USER by name", "alice", nil, "uid=1000 .*", "groups=10 29 1000 1005", "env:HOME", "cap.*"),
		one("USER by number", "uid", nil, "uid", "groups", "env:HOME=/home/alice"),
		one("USER that no file names", "stranger", nil, "uid=4242.*", "gid", "groups", "env:HOME=/"),
		one("USER with a group", "group", nil, "gid=29 .*", "groups"),
		one("USER whose name is a number", "digits", nil, "uid", "env:HOME"),
		one("ENV over HOME, HOSTNAME, PATH, twice", "environment", nil, "env", "env:HOSTNAME", "env:HOME"),
		one("ENV that is empty", "bare", nil, "env"),
		one("WORKDIR that is missing, of another user", "workdir", nil, "cwd=/work/made", "cwd.node=.*0:0"),
		one("WORKDIR through a link", "linked", nil, "cwd"),
		one("WORKDIR that is relative", "relative", nil, "exit"),
		one("VOLUME with content", "volume", nil, "walk:/data.*").with("/probe", "walk", "/data"),
		one("links in place of /etc/hosts and others", "links", []string{"-h", "box"}, "walk:/etc/hosts", "walk:/opt/target.*").with("/probe", "walk", "/etc", "/opt/target"),
	}
}
