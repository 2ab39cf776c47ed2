package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// putAway moves a device to a network namespace that nobody is in. There it has no
// address and no route, and its name is free. It cannot be deleted: it is the VMM's.
func (d *hostNICs) putAway(index int) (err error) {
	if d.away == nil {
		if d.away, err = newNetwork(); err != nil {
			return err
		}
	}
	return moveDevice(index, int(d.away.Fd()))
}

// newNetwork makes a network namespace, which lasts as long as the file.
func newNetwork() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		file, err := onNewNetwork()
		done <- result{file, err}
	}()
	r := <-done
	return r.file, r.err
}

// onNewNetwork unlocks the thread only when it is back: else it ends together with
// the goroutine.
func onNewNetwork() (*os.File, error) {
	const file = "/proc/thread-self/ns/net"
	runtime.LockOSThread()
	back, err := os.Open(file)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer back.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	made, err := os.Open(file)
	if back := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, errors.Join(err, fmt.Errorf("return to the network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return made, err
}

// moveDevice moves a network device to a network namespace: rtnetlink(7), RTM_NEWLINK
// with IFLA_NET_NS_FD.
func moveDevice(index, namespace int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, moveMessage(index, namespace), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return err
	}
	// The answer is a struct nlmsgerr: a negative error number, or 0.
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("an answer of %d bytes that says nothing", n)
	}
	if code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func moveMessage(index, namespace int) []byte {
	const size = unix.SizeofNlMsghdr + unix.SizeofIfInfomsg + unix.SizeofRtAttr + 4
	e := binary.NativeEndian
	b := e.AppendUint32(nil, size)
	b = e.AppendUint16(b, unix.RTM_NEWLINK)
	b = e.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, 8)...) // no number, to the kernel
	b = append(b, make([]byte, 4)...) // any family, of any type
	b = e.AppendUint32(b, uint32(index))
	b = append(b, make([]byte, 8)...) // its flags stay
	b = e.AppendUint16(b, unix.SizeofRtAttr+4)
	b = e.AppendUint16(b, unix.IFLA_NET_NS_FD)
	return e.AppendUint32(b, uint32(namespace))
}
