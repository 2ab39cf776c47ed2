package main

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// calls makes system calls that a container may or may not. All are harmless to
// the machine even where they are allowed: they have arguments that the kernel
// refuses, or concern this process only.
func calls() facts {
	f := facts{}
	f.status()
	const bad = ^uintptr(0)
	for _, c := range []struct {
		name string
		n    uintptr
		args [3]uintptr
	}{
		{"add_key", unix.SYS_ADD_KEY, [3]uintptr{}},
		{"bpf", unix.SYS_BPF, [3]uintptr{bad}},
		{"chroot", unix.SYS_CHROOT, [3]uintptr{}},
		{"clock_settime", unix.SYS_CLOCK_SETTIME, [3]uintptr{bad}},
		{"delete_module", unix.SYS_DELETE_MODULE, [3]uintptr{}},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, [3]uintptr{bad}},
		{"finit_module", unix.SYS_FINIT_MODULE, [3]uintptr{bad}},
		{"fsopen", unix.SYS_FSOPEN, [3]uintptr{}},
		{"get_mempolicy", unix.SYS_GET_MEMPOLICY, [3]uintptr{1, 1, 1}},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{}},
		{"ioperm", unix.SYS_IOPERM, [3]uintptr{bad, 1}},
		{"kcmp", unix.SYS_KCMP, [3]uintptr{1, 1, bad}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [3]uintptr{0, bad}},
		{"keyctl", unix.SYS_KEYCTL, [3]uintptr{bad}},
		{"mount", unix.SYS_MOUNT, [3]uintptr{1, 1, 1}},
		{"move_pages", unix.SYS_MOVE_PAGES, [3]uintptr{bad}},
		{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [3]uintptr{bad}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [3]uintptr{bad}},
		{"open_tree", unix.SYS_OPEN_TREE, [3]uintptr{bad, 0, bad}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [3]uintptr{}},
		{"personality", unix.SYS_PERSONALITY, [3]uintptr{0x0400000}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [3]uintptr{}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [3]uintptr{}},
		{"ptrace", unix.SYS_PTRACE, [3]uintptr{bad}},
		{"quotactl", unix.SYS_QUOTACTL, [3]uintptr{bad}},
		{"reboot", unix.SYS_REBOOT, [3]uintptr{}},
		{"setns", unix.SYS_SETNS, [3]uintptr{bad}},
		{"sethostname", unix.SYS_SETHOSTNAME, [3]uintptr{0, bad}},
		{"swapon", unix.SYS_SWAPON, [3]uintptr{}},
		{"syslog", unix.SYS_SYSLOG, [3]uintptr{10}},
		{"umount2", unix.SYS_UMOUNT2, [3]uintptr{0, bad}},
		{"unshare", unix.SYS_UNSHARE, [3]uintptr{bad}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [3]uintptr{bad}},
		{"vhangup_unknown", 10000, [3]uintptr{}},
	} {
		_, _, e := syscall.RawSyscall(c.n, c.args[0], c.args[1], c.args[2])
		f["call:"+c.name] = reason(e)
	}
	for name, flag := range map[string]int{
		"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "network": unix.CLONE_NEWNET, "cgroup": unix.CLONE_NEWCGROUP,
	} {
		f["unshare:"+name] = unshare(flag)
	}
	f["socket:vsock"] = socket(unix.AF_VSOCK, unix.SOCK_STREAM)
	f["socket:alg"] = socket(unix.AF_ALG, unix.SOCK_SEQPACKET)
	f["socket:packet"] = socket(unix.AF_PACKET, unix.SOCK_RAW)
	f["socket:raw"] = socket(unix.AF_INET, unix.SOCK_RAW)
	f["socket:ping"] = socket(unix.AF_INET, unix.SOCK_DGRAM)
	f.files()
	return f
}

// unshare tries it on a thread that ends with it.
func unshare(flag int) string {
	answer := make(chan string)
	go func() {
		runtime.LockOSThread()
		answer <- reason(orOK(unix.Unshare(flag)))
	}()
	return <-answer
}

func socket(family, kind int) string {
	protocol := 0
	if family == unix.AF_INET {
		protocol = unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return reason(orOK(err))
}

// files tries what needs a capability, in directories of the container.
func (f facts) files() {
	try := func(name string, err error) { f["try:"+name] = reason(orOK(err)) }
	dir := "/tmp/probe"
	try("mkdir", os.Mkdir(dir, 0o777))
	defer os.RemoveAll(dir)
	file := dir + "/file"
	try("create", os.WriteFile(file, nil, 0o666))
	try("mknod null", unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	try("mknod disk", unix.Mknod(dir+"/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 1000))))
	try("chown", unix.Chown(file, 12345, 12345))
	try("set capability", unix.Setxattr(file, "security.capability",
		[]byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	try("set trusted xattr", unix.Setxattr(file, "trusted.note", []byte("x"), 0))
	try("write /etc/hosts", open("/etc/hosts"))
	try("write /etc/passwd", open("/etc/passwd"))
	try("write /proc/sys", open("/proc/sys/kernel/shmmni"))
	try("write /sys", open("/sys/kernel/mm/transparent_hugepage/enabled"))
	try("write /dev/shm", os.WriteFile("/dev/shm/probe", nil, 0o600))
	_ = os.Remove("/dev/shm/probe")
	try("nice -5", unix.Setpriority(unix.PRIO_PROCESS, 0, -5))
	try("raise nofile", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}))
	try("bind port 80", bind(80))
	try("kill init", unix.Kill(1, 0))
}

func open(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func bind(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
}
