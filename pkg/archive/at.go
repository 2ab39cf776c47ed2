package archive

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The calls here take a directory and one element of a path in it, which they
// do not follow if it is a link.

func statAt(dir *os.File, name string) (st unix.Stat_t, err error) {
	err = again(func() error { return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	return createAt(dir, name, flags, 0)
}

func createAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd := -1
	err := again(func() (err error) {
		fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func readlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// again repeats a call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
