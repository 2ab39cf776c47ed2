package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func show() facts {
	f := facts{}
	f.process()
	f.status()
	f.environment()
	f.limits()
	f.streams()
	f.names()
	f.mounts()
	f.devices()
	f.protected()
	f.sysctls()
	f.cgroup()
	f.network()
	return f
}

// reason is the name of a system call's error, or its text.
func reason(err error) string {
	var e syscall.Errno
	if errors.As(err, &e) {
		if e == 0 {
			return "ok"
		}
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func readFile(name string) (string, error) {
	b, err := os.ReadFile(name)
	return strings.TrimRight(string(b), "\n"), err
}

func (f facts) process() {
	f["args"] = fmt.Sprintf("%q", os.Args)
	f.set("cwd", os.Getwd)
	f.set("cwd.node", func() (string, error) { return node(".") })
	f["pid"] = process(os.Getpid())
	f["ppid"] = strconv.Itoa(os.Getppid())
	f["pgid"] = process(unix.Getpgrp())
	f.set("sid", func() (string, error) {
		n, err := unix.Getsid(0)
		return process(n), err
	})
	old := unix.Umask(0)
	unix.Umask(old)
	f["umask"] = fmt.Sprintf("%04o", old)
	f.set("oom_score_adj", func() (string, error) { return readFile("/proc/self/oom_score_adj") })
	f.set("exe", func() (string, error) { return os.Readlink("/proc/self/exe") })
	for name, option := range map[string]int{
		"securebits": unix.PR_GET_SECUREBITS, "dumpable": unix.PR_GET_DUMPABLE, "child_subreaper": unix.PR_GET_CHILD_SUBREAPER,
	} {
		f.set(name, func() (string, error) { return prctl(option) })
	}
	f.set("nice", func() (string, error) {
		n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		return strconv.Itoa(20 - n), err // the system call's own form
	})
	f.set("descriptors", descriptors)
	f.set("ancestors", ancestors)
}

// process says which process a number means: others than 1 differ in each run.
func process(pid int) string {
	switch pid {
	case 1:
		return "1"
	case os.Getpid():
		return "its own"
	}
	return "another"
}

func prctl(option int) (string, error) {
	if option == unix.PR_GET_CHILD_SUBREAPER {
		var n int32
		err := unix.Prctl(option, uintptr(address(&n)), 0, 0, 0)
		return strconv.Itoa(int(n)), err
	}
	n, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
	return strconv.Itoa(n), err
}

// descriptors are those that came with the exec: not the runtime's own.
func descriptors() (string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return "", err
	}
	var open []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") ||
			strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/fs/cgroup/") {
			continue
		}
		open = append(open, e.Name())
	}
	return strings.Join(open, " "), nil
}

// ancestors are the commands from this process up to PID 1.
func ancestors() (string, error) {
	var names []string
	for pid := os.Getppid(); pid > 0; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return "", err
		}
		text := string(stat)
		names = append(names, text[strings.IndexByte(text, '(')+1:strings.LastIndexByte(text, ')')])
		rest := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if pid, err = strconv.Atoi(rest[1]); err != nil {
			return "", err
		}
	}
	return strings.Join(names, " "), nil
}

// status reads what the kernel says about ids and privileges.
func (f facts) status() {
	text, err := readFile("/proc/self/status")
	if err != nil {
		f["uid"] = "error: " + reason(err)
		return
	}
	wanted := map[string]string{
		"Uid": "uid", "Gid": "gid", "Groups": "groups", "CapInh": "cap.inheritable", "CapPrm": "cap.permitted",
		"CapEff": "cap.effective", "CapBnd": "cap.bounding", "CapAmb": "cap.ambient", "NoNewPrivs": "no_new_privs", "Seccomp": "seccomp",
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		if name := wanted[key]; name != "" {
			f[name] = strings.Join(strings.Fields(value), " ")
		}
	}
}

// environment is told in the order of its names: docker's client gives the engine
// the variables of -e in the order of a map.
func (f facts) environment() {
	f["env"] = fmt.Sprintf("%q", slices.Sorted(slices.Values(os.Environ())))
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		f["env:"+name] = value
	}
}

// limits asks another program: Go raises the soft limit of open files before
// main, and sets it back for its children.
func (f facts) limits() {
	out, err := exec.Command("/bin/busybox", "cat", "/proc/self/limits").Output()
	if err != nil {
		f["limit:nofile"] = "error: " + err.Error()
		return
	}
	for line := range strings.Lines(string(out)) {
		// Three columns: a name of fixed width, and two values.
		if name, rest, ok := strings.Cut(line, "  "); ok && strings.HasPrefix(name, "Max ") {
			values := strings.Fields(rest)
			f["limit:"+strings.TrimPrefix(name, "Max ")] = values[0] + ":" + values[1]
		}
	}
}

func (f facts) names() {
	f.set("hostname", os.Hostname)
	f.set("domainname", func() (string, error) {
		var u unix.Utsname
		err := unix.Uname(&u)
		return unix.ByteSliceToString(u.Domainname[:]), err
	})
	for _, name := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		f.set("file:"+name, func() (string, error) { return readFile(name) })
	}
	f.set("link:/etc/mtab", func() (string, error) { return os.Readlink("/etc/mtab") })
}

func (f facts) sysctls() {
	for _, name := range []string{
		"net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv4/ip_forward",
		"kernel/shmmni", "kernel/msgmax", "kernel/sem", "fs/mqueue/msg_max",
	} {
		f.set("sysctl:"+name, func() (string, error) {
			text, err := readFile("/proc/sys/" + name)
			return strings.Join(strings.Fields(text), " "), err
		})
	}
}

// cgroup reads the limits, by v2's names, in whichever version there is.
func (f facts) cgroup() {
	const dir = "/sys/fs/cgroup/"
	_, err := os.Stat(dir + "cgroup.controllers")
	v2 := err == nil
	for _, l := range []struct{ name, old string }{
		{"memory.max", "memory/memory.limit_in_bytes"}, {"memory.low", "memory/memory.soft_limit_in_bytes"},
		{"pids.max", "pids/pids.max"}, {"cpuset.cpus", "cpuset/cpuset.cpus"},
	} {
		file := l.name
		if !v2 {
			file = l.old
		}
		f.set("cgroup:"+l.name, func() (string, error) {
			text, err := readFile(dir + file)
			if text == "9223372036854771712" { // v1's word for no limit
				text = map[string]string{"memory.max": "max", "memory.low": "0"}[l.name]
			}
			return text, err
		})
	}
	f.set("cgroup:cpu.max", func() (string, error) {
		if v2 {
			return readFile(dir + "cpu.max")
		}
		quota, err := readFile(dir + "cpu/cpu.cfs_quota_us")
		if err != nil {
			return "", err
		}
		if quota == "-1" {
			quota = "max"
		}
		period, err := readFile(dir + "cpu/cpu.cfs_period_us")
		return quota + " " + period, err
	})
	f.set("cgroup:writable", func() (string, error) {
		probe := "probe"
		if !v2 {
			probe = "cpu/probe"
		}
		err := os.Mkdir(dir+probe, 0o755)
		if err == nil {
			err = os.Remove(dir + probe)
		}
		return reason(orOK(err)), nil
	})
}

// orOK makes nil an error that reason calls ok.
func orOK(err error) error {
	if err == nil {
		return syscall.Errno(0)
	}
	return err
}

// network lists the interfaces that are up; a kernel may have idle tunnels.
func (f facts) network() {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		f["interfaces"] = "error: " + reason(err)
		return
	}
	var up []string
	for _, e := range entries {
		flags, err := readFile("/sys/class/net/" + e.Name() + "/flags")
		n, perr := strconv.ParseUint(flags, 0, 32)
		if err == nil && perr == nil && n&unix.IFF_UP != 0 {
			up = append(up, e.Name())
		}
	}
	slices.Sort(up)
	f["interfaces"] = strings.Join(up, " ")
}
