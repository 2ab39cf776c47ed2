package main

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hidden are the paths that docker masks or write-protects; which of them exist
// is the kernel's affair.
func hidden() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/interrupts", "/proc/irq", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/sys", "/proc/sysrq-trigger", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// mounts tells type, flags and options of each mount point, but for those that
// protected is about.
func (f facts) mounts() {
	text, err := readFile("/proc/self/mountinfo")
	if err != nil {
		f["mounts"] = "error: " + reason(err)
		return
	}
	for line := range strings.Lines(text) {
		// proc_pid_mountinfo(5)
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 3 {
			continue
		}
		target := l[4]
		if slices.Contains(hidden(), target) || strings.HasPrefix(target, "/sys/fs/cgroup/") {
			continue
		}
		f["mount:"+target+".type"] = r[0]
		f["mount:"+target+".flags"] = sorted(l[5], nil)
		f["mount:"+target+".options"] = sorted(r[2], []string{"size", "mode", "uid", "gid", "ptmxmode", "nr_inodes"})
		f["mount:"+target+".propagation"] = strings.Join(l[6:], " ")
	}
}

// sorted is a list of options; with keys only those.
func sorted(options string, keys []string) string {
	all := strings.Split(options, ",")
	all = slices.DeleteFunc(all, func(o string) bool {
		key, _, _ := strings.Cut(o, "=")
		return keys != nil && !slices.Contains(keys, key)
	})
	slices.Sort(all)
	return strings.Join(all, ",")
}

// protected tells what can be done with each of the hidden paths.
func (f facts) protected() {
	for _, name := range hidden() {
		f["path:"+name] = protection(name)
	}
}

func protection(name string) string {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return "absent"
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
		return "masked"
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(name, &fs); err != nil {
		return "error: " + reason(err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && fs.Type == unix.TMPFS_MAGIC {
		if entries, err := os.ReadDir(name); err == nil && len(entries) == 0 {
			return "masked"
		}
		return "replaced"
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return "read-only"
	}
	return "open"
}
