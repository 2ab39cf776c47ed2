package firecracker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// linkBuffer is how much of what the guest sends may wait for us, in bytes.
const linkBuffer = 4 << 20

// tap is a TAP device that a guard makes in the VMM's network namespace, where
// nothing else is. The VMM opens it by its name, and needs no right for that
// but to be Owner. The host's end is no address and no route: a packet socket
// on the device, which the guard hands to the driver.
type tap struct {
	Name  string
	Owner int // user id
	MTU   int // bytes
	// Device is one that the driver takes to the host: it has no socket.
	Device bool
}

// tapName is the i-th NIC's device. No vmm.NIC.Device has such a name.
func tapName(i int, n vmm.NIC) string {
	if n.Device != "" {
		return n.Device
	}
	return fmt.Sprintf("tap_%d", i)
}

// taps are the devices of a VM whose VMM is the user owner. Pure.
func taps(c vmm.Config, owner int) []tap {
	var out []tap
	for i, n := range c.NICs {
		out = append(out, tap{Name: tapName(i, n), Owner: owner, MTU: n.MTU, Device: n.Device != ""})
	}
	return out
}

// make makes the device and returns its packet socket.
func (t tap) make() (fd int, err error) {
	if err := t.create(); err != nil {
		return -1, err
	}
	if t.Device {
		return -1, nil
	}
	// A device that comes up would get an IPv6 address, and the kernel would
	// talk to the guest. Without IPv6 there is no such file, and where /proc/sys
	// is read-only the guest has to bear it.
	err = os.WriteFile("/proc/sys/net/ipv6/conf/"+t.Name+"/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return -1, fmt.Errorf("keep IPv6 off %s: %w", t.Name, err)
	}
	// Before the socket, which would tell once that the network is down.
	if err := t.up(); err != nil {
		return -1, fmt.Errorf("bring the TAP device %s up: %w", t.Name, err)
	}
	if fd, err = t.open(); err != nil {
		return -1, fmt.Errorf("open the TAP device %s: %w", t.Name, err)
	}
	return fd, nil
}

// create leaves a device that persists until its namespace goes: Firecracker
// opens it by its name.
func (t tap) create() error {
	f, err := vmm.NewTAP(t.Name, t.MTU)
	if file := (*fs.PathError)(nil); errors.As(err, &file) {
		return fmt.Errorf("%w: a network takes this file (modprobe tun, and mode 0666 as udev makes it), or use --network none", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETOWNER, t.Owner); err != nil {
		return fmt.Errorf("give the TAP device %s to user %d: %w", t.Name, t.Owner, err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep the TAP device %s: %w", t.Name, err)
	}
	return nil
}

// open returns a socket of which each read is a frame of the guest, each write
// one for it: packet(7).
func (t tap) open() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	dev, err := net.InterfaceByName(t.Name)
	if err == nil {
		// What we send is not to come back.
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: dev.Index})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	// The default holds three large frames. Who may not have more has less speed.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, linkBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, linkBuffer)
	}
	return fd, nil
}

func (t tap) up() error {
	return vmm.ChangeDevice(t.Name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) })
}

// htons puts a number into the network's byte order.
func htons(v uint16) uint16 {
	b := [2]byte{byte(v >> 8), byte(v)}
	return *(*uint16)(unsafe.Pointer(&b))
}

// makeTaps makes all devices, or none that anybody could use, and returns the
// sockets of those that have one.
func makeTaps(taps []tap) ([]int, error) {
	var fds []int
	for _, t := range taps {
		fd, err := t.make()
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		if !t.Device {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
