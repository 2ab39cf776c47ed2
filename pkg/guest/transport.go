package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/portmux"
)

const (
	portName = "micropod.agent" // virtio-serial port that carries portmux
	// deviceTimeout bounds the wait for the channel's device. Drivers probe
	// while modules load; only the virtio-serial port's name comes later.
	deviceTimeout = 30 * time.Second
)

// channel is the way to the host. Both kinds reach only the host, and only the
// agent: a virtio-serial port opens once, vsock peers are checked.
type channel interface {
	dialHost(ctx context.Context, port uint32) (net.Conn, error)
	listen(port uint32) (net.Listener, error)
}

// uevents is the kernel's stream of device events.
type uevents int

// openUevents must be called before modules are loaded, so that no event is missed.
func openUevents() (uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, fmt.Errorf("open device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind device events: %w", err)
	}
	return uevents(fd), nil
}

func (u uevents) close() { unix.Close(int(u)) }

// wait returns after the next event, or an error after timeout.
func (u uevents) wait(timeout time.Duration) error {
	tv := unix.NsecToTimeval(max(int64(timeout), int64(time.Millisecond)))
	if err := unix.SetsockoptTimeval(int(u), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	var buf [8192]byte
	_, err := unix.Read(int(u), buf[:])
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
		return nil // look again
	}
	return err
}

// findChannel waits until one of the two kinds of device is there.
func findChannel(u uevents) (channel, error) {
	deadline := time.Now().Add(deviceTimeout)
	for {
		if dev := findPort("/sys/class/virtio-ports"); dev != "" {
			return openPort(dev)
		}
		if hasVsock() {
			return vsockChannel{}, nil
		}
		if err := u.wait(time.Until(deadline)); err != nil {
			return nil, fmt.Errorf("no channel to the host: neither a virtio-serial port %s nor a vsock device after %s", portName, deviceTimeout)
		}
	}
}

// findPort returns the device of the port named portName, "" if there is none.
func findPort(class string) string {
	names, _ := filepath.Glob(class + "/*/name")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(b)) == portName {
			return "/dev/" + filepath.Base(filepath.Dir(name))
		}
	}
	return ""
}

type portChannel struct{ session *portmux.Session }

func openPort(dev string) (channel, error) {
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dev, err)
	}
	if err := waitHost(fd, deviceTimeout); err != nil {
		return nil, fmt.Errorf("%s: %w", dev, err)
	}
	s, err := portmux.Guest(os.NewFile(uintptr(fd), dev))
	if err != nil {
		return nil, err
	}
	return portChannel{s}, nil
}

// waitHost waits until the host has opened its end of the port: before that a
// read returns 0, which would look like the end. The kernel gives no event for
// it that a poll could wait for, since POLLHUP is a state.
//
// This is where the guest of a template stops (maketemplate.go of package qemu). So
// nothing may have happened before that is another VM's: its disks, its network,
// a read of a random number.
func waitHost(fd int, timeout time.Duration) error {
	for end := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 0); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if p[0].Revents&unix.POLLHUP == 0 {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the host has not opened its end")
		}
	}
}

func (c portChannel) dialHost(ctx context.Context, port uint32) (net.Conn, error) {
	return c.session.Dial(ctx, port)
}

func (c portChannel) listen(port uint32) (net.Listener, error) { return c.session.Listen(port) }

// hasVsock reports whether a vsock device is bound to its driver.
func hasVsock() bool {
	fd, err := unix.Open("/dev/vsock", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	cid, err := unix.IoctlGetUint32(fd, unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
	return err == nil && cid != unix.VMADDR_CID_ANY && cid > unix.VMADDR_CID_HOST
}

type vsockChannel struct{}

func (vsockChannel) dialHost(ctx context.Context, port uint32) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open vsock: %w", err)
	}
	if err := connectVsock(ctx, fd, port); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to host port %d: %w", port, err)
	}
	return newVsockConn(fd)
}

// connectVsock connects a socket that does not block: one that does gives its
// connection up for any signal, one of Go's runtime too. The kernel bounds the wait,
// to two seconds unless it is told (vsock(7), SO_VM_SOCKETS_CONNECT_TIMEOUT).
func connectVsock(ctx context.Context, fd int, port uint32) error {
	if deadline, ok := ctx.Deadline(); ok {
		tv := unix.NsecToTimeval(max(int64(time.Until(deadline)), int64(time.Millisecond)))
		if err := unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &tv); err != nil {
			return err
		}
	}
	err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port})
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if _, err := ignoringEINTR(func() (int, error) { return unix.Poll(p, -1) }); err != nil {
		return err
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

func (vsockChannel) listen(port uint32) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open vsock: %w", err)
	}
	f := os.NewFile(uintptr(fd), "vsock listener")
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		f.Close()
		return nil, fmt.Errorf("bind vsock port %d: %w", port, err)
	}
	if err := unix.Listen(fd, 64); err != nil {
		f.Close()
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return &vsockListener{f}, nil
}

// vsockListener accepts connections of the host and drops all others: a process
// in the guest can reach the port by the local CID.
type vsockListener struct{ f *os.File }

func (l *vsockListener) Accept() (net.Conn, error) {
	for {
		fd, peer, err := l.accept()
		if err != nil {
			return nil, err
		}
		if vm, ok := peer.(*unix.SockaddrVM); ok && fromHost(vm) {
			return newVsockConn(fd)
		}
		unix.Close(fd)
	}
}

// fromHost reports whether the peer is the host's VMM: no other CID, the
// guest's own and VMADDR_CID_LOCAL least of all, may speak with the agent.
func fromHost(peer *unix.SockaddrVM) bool { return peer.CID == unix.VMADDR_CID_HOST }

func (l *vsockListener) accept() (fd int, peer unix.Sockaddr, err error) {
	rc, err := l.f.SyscallConn()
	if err != nil {
		return -1, nil, err
	}
	rerr := rc.Read(func(lfd uintptr) bool {
		for {
			fd, peer, err = unix.Accept4(int(lfd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err != unix.EINTR && err != unix.ECONNABORTED {
				return err != unix.EAGAIN
			}
		}
	})
	if rerr != nil {
		return -1, nil, rerr
	}
	return fd, peer, err
}

func (l *vsockListener) Close() error   { return l.f.Close() }
func (l *vsockListener) Addr() net.Addr { return vsockAddr(api.AgentPort) }

type vsockAddr uint32

func (vsockAddr) Network() string  { return "vsock" }
func (a vsockAddr) String() string { return fmt.Sprintf("vsock port %d", uint32(a)) }

// vsockConn is a connected socket behind the runtime's poller; the net package
// does not know the address family.
type vsockConn struct{ *os.File }

func newVsockConn(fd int) (net.Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return vsockConn{os.NewFile(uintptr(fd), "vsock")}, nil
}

func (vsockConn) LocalAddr() net.Addr  { return vsockAddr(0) }
func (vsockConn) RemoteAddr() net.Addr { return vsockAddr(0) }
