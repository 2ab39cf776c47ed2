package vmm

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// NewTAP makes a TAP device in the network namespace of the calling thread:
// with a virtio_net header before each frame, not up, and gone once the last
// copy of the file is closed. See
// https://docs.kernel.org/networking/tuntap.html.
func NewTAP(name string, mtu int) (*os.File, error) {
	f, err := newTAP(name, mtu)
	switch {
	case errors.Is(err, unix.EBUSY):
		err = fmt.Errorf("make the TAP device %s: there is a device of that name: %w", name, err)
	case errors.Is(err, unix.EPERM):
		err = fmt.Errorf("make the TAP device %s: %w (it takes root, or CAP_NET_ADMIN)", name, err)
	case err != nil:
		err = fmt.Errorf("make the TAP device %s: %w", name, err)
	}
	return f, err
}

func newTAP(name string, mtu int) (*os.File, error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	// Not by package os, which would have the file watched before it is a device.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	// Without TUN_EXCL a device that somebody made beforehand would do.
	r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	if err == nil {
		err = ChangeDevice(name, unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(uint32(mtu)) })
		if err != nil {
			err = fmt.Errorf("set MTU %d: %w", mtu, err)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ChangeDevice makes one request of netdevice(7), with the value that set writes, of
// a network device in the network namespace of the calling thread.
func ChangeDevice(name string, request uint, set func(*unix.Ifreq)) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	set(r)
	return unix.IoctlIfreq(fd, request, r)
}

// InNewNetwork runs f on a thread that is in a new network namespace, which has
// no name and lasts as long as what f has made in it and returned. It takes
// CAP_SYS_ADMIN.
func InNewNetwork(f func() error) error {
	done := make(chan error)
	go func() { done <- inNewNetwork(f) }()
	return <-done
}

// inNewNetwork unlocks the thread only when it is back: else it ends together
// with the goroutine.
func inNewNetwork(f func() error) error {
	runtime.LockOSThread()
	back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("look at the network namespace: %w", err)
	}
	defer unix.Close(back)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("make a network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(back, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("return to the network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
