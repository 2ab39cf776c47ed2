package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/portmux"
)

// channel is the way to the host.
type channel interface {
	listen(port uint32) (net.Listener, error)
	dial(port uint32) (net.Conn, error)
}

func openChannel() (channel, error) {
	var ch channel
	var err error
	werr := wait("channel to the host", func() bool {
		if dev := findPort(); dev != "" {
			ch, err = openPort(dev)
			return true
		}
		if fd, verr := unix.Open("/dev/vsock", unix.O_RDONLY|unix.O_CLOEXEC, 0); verr == nil {
			defer unix.Close(fd)
			cid, verr := unix.IoctlGetUint32(fd, unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
			if verr == nil && cid > unix.VMADDR_CID_HOST && cid != unix.VMADDR_CID_ANY {
				ch = vsock{}
				return true
			}
		}
		return false
	})
	if err == nil {
		err = werr
	}
	return ch, err
}

func findPort() string {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == "micropod.agent" {
			return "/dev/" + filepath.Base(filepath.Dir(n))
		}
	}
	return ""
}

type port struct{ s *portmux.Session }

func openPort(dev string) (channel, error) {
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dev, err)
	}
	// A read before the host has opened its end looks like the end.
	err = wait("host at the other end of "+dev, func() bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(p, 0)
		return err == nil && p[0].Revents&unix.POLLHUP == 0
	})
	if err != nil {
		return nil, err
	}
	s, err := portmux.Guest(os.NewFile(uintptr(fd), dev))
	return port{s}, err
}

func (p port) listen(n uint32) (net.Listener, error) { return p.s.Listen(n) }
func (p port) dial(n uint32) (net.Conn, error)       { return p.s.Dial(context.Background(), n) }

// vsock is AF_VSOCK; package net does not know it.
type vsock struct{}

// dial does not block in connect: a signal, of Go's runtime too, would end that.
func (vsock) dial(n uint32) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: n})
	if err == unix.EINPROGRESS {
		for err = unix.EINTR; err == unix.EINTR; {
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		}
		var code int
		if code, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
			err = unix.Errno(code)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to host port %d: %w", n, err)
	}
	return newVsockConn(fd)
}

func (vsock) listen(n uint32) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: n}); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, 128); err != nil {
		return nil, err
	}
	return vsockListener(fd), nil
}

type vsockListener int

func (l vsockListener) Accept() (net.Conn, error) {
	for {
		fd, _, err := unix.Accept4(int(l), unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return nil, err
		}
		return newVsockConn(fd)
	}
}

func (l vsockListener) Close() error { return unix.Close(int(l)) }
func (vsockListener) Addr() net.Addr { return nil }

type vsockConn struct{ *os.File }

func newVsockConn(fd int) (net.Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return vsockConn{os.NewFile(uintptr(fd), "vsock")}, nil
}

func (vsockConn) LocalAddr() net.Addr                  { return nil }
func (vsockConn) RemoteAddr() net.Addr                 { return nil }
func (c vsockConn) SetDeadline(t time.Time) error      { return c.File.SetDeadline(t) }
func (c vsockConn) SetReadDeadline(t time.Time) error  { return c.File.SetReadDeadline(t) }
func (c vsockConn) SetWriteDeadline(t time.Time) error { return c.File.SetWriteDeadline(t) }
