package vmm

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestCloseOnExec(t *testing.T) {
	fd, err := unix.Open("/etc", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := CloseOnExec(); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]int{fd: unix.FD_CLOEXEC, 1: 0, 2: 0} {
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil || flags != want {
			t.Errorf("descriptor %d: flags %d, %v, want %d", n, flags, err, want)
		}
	}
}
