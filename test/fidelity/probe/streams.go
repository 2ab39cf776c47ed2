package main

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func address[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

// streams tells what 0, 1 and 2 are, and about the terminal.
func (f facts) streams() {
	for fd, name := range []string{"stdin", "stdout", "stderr"} {
		f.set("stream:"+name, func() (string, error) { return stream(fd) })
		if fd > 0 {
			f.set("reopen:"+name, func() (string, error) { return reopen("/dev/" + name) })
		}
	}
	f.set("tty", func() (string, error) {
		t, err := os.Open("/dev/tty")
		if err != nil {
			return "", err
		}
		defer t.Close()
		group, err := unix.IoctlGetInt(int(t.Fd()), unix.TIOCGPGRP)
		return fmt.Sprintf("foreground %t", group == unix.Getpgrp()), err
	})
	f.set("console", func() (string, error) { return node("/dev/console") })
}

// stream is the kind, owner and mode of a descriptor.
func stream(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	kind := map[uint32]string{unix.S_IFIFO: "pipe", unix.S_IFCHR: "device", unix.S_IFREG: "file", unix.S_IFSOCK: "socket"}[st.Mode&unix.S_IFMT]
	target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if kind == "device" {
		// How many terminals others have open is nobody's affair.
		kind = strings.TrimRight(target, "0123456789")
	}
	text := fmt.Sprintf("%s mode %04o owner %d:%d", kind, st.Mode&0o7777, st.Uid, st.Gid)
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		size, _ := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		text += fmt.Sprintf(" terminal %dx%d iflag %o oflag %o cflag %o lflag %o", size.Col, size.Row, t.Iflag, t.Oflag, t.Cflag, t.Lflag)
	}
	return text, nil
}

// reopen writes nothing through a name of /dev.
func reopen(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return reason(orOK(err)), nil
}

// node is one name of /dev.
func node(name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return "", err
	}
	text := fmt.Sprintf("%s %04o %d:%d", fileKind(st.Mode), st.Mode&0o7777, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" device %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFLNK:
		target, err := os.Readlink(name)
		if err != nil {
			return "", err
		}
		text += " to " + target
	}
	return text, nil
}

func fileKind(mode uint32) string {
	kinds := map[uint32]string{
		unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "link", unix.S_IFIFO: "fifo",
		unix.S_IFCHR: "char", unix.S_IFBLK: "block", unix.S_IFSOCK: "socket",
	}
	return kinds[mode&unix.S_IFMT]
}

// devices lists /dev and one level below, but no terminals: there are as many
// as were opened.
func (f facts) devices() {
	for _, dir := range []string{"/dev", "/dev/shm", "/dev/mqueue", "/dev/net", "/dev/pts"} {
		f.set("dev:"+dir, func() (string, error) { return node(dir) })
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := dir + "/" + e.Name()
			if dir == "/dev/pts" && strings.Trim(e.Name(), "0123456789") == "" {
				continue
			}
			f.set("dev:"+name, func() (string, error) { return node(name) })
		}
	}
}
