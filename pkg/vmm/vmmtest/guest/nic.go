package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

// nic brings the network device with an address up and returns every frame of
// the suite's kind to its sender. A device that still has its template's address
// gets its own.
func nic(mac, mtu, template string) (string, error) {
	if dev, err := device(template); template != "" && err == nil {
		if err := readdress(dev.Name, mac); err != nil {
			return "", fmt.Errorf("give %s the address %s: %w", dev.Name, mac, err)
		}
	}
	dev, err := device(mac)
	if err != nil {
		return "", err
	}
	bytes, err := strconv.ParseUint(mtu, 10, 32)
	if err != nil {
		return "", err
	}
	if err := up(dev.Name, uint32(bytes)); err != nil {
		return "", fmt.Errorf("bring %s up: %w", dev.Name, err)
	}
	kind := uint16(wire.EtherType[1])<<8 | uint16(wire.EtherType[0]) // in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(kind))
	if err != nil {
		return "", err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: kind, Ifindex: dev.Index}); err != nil {
		return "", err
	}
	go func() {
		buf := make([]byte, 1<<17)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				log.Print(err)
				return
			}
			var to [6]byte
			copy(to[:], buf[6:])
			copy(buf[6:], buf[:6])
			copy(buf, to[:])
			if _, err := unix.Write(fd, buf[:n]); err != nil {
				log.Print(err)
			}
		}
	}()
	return "up", nil
}

// send gives the network device with an address of its own one of IPv4, and sends
// bytes of the pattern to a TCP server.
func send(mac, from, to, count string) (string, error) {
	dev, err := device(mac)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return "", err
	}
	if err := address(dev.Name, from); err != nil {
		return "", fmt.Errorf("give %s the address %s: %w", dev.Name, from, err)
	}
	c, err := net.Dial("tcp4", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_, err = io.CopyN(c, wire.Pattern(), n)
	return "sent", err
}

// address gives a device an IPv4 address, whose network is of its class.
func address(device, ip string) error {
	return change(device, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(net.ParseIP(ip).To4()) })
}

// change makes one request of netdevice(7), with the value that set writes.
func change(device string, request uint, set func(*unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := set(r); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, request, r)
}

// features are the virtio features of a network device, as the kernel has them:
// one character for each.
func features(mac string) (string, error) {
	dev, err := device(mac)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile("/sys/class/net/" + dev.Name + "/device/features")
	return string(b), err
}

func device(mac string) (net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return net.Interface{}, err
	}
	for _, dev := range all {
		if dev.HardwareAddr.String() == mac {
			return dev, nil
		}
	}
	return net.Interface{}, fmt.Errorf("no device has the address %s", mac)
}

// readdress gives a device an address: netdevice(7).
func readdress(device, mac string) error {
	addr, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var r struct {
		name   [unix.IFNAMSIZ]byte
		family uint16
		data   [22]byte
	}
	copy(r.name[:], device)
	r.family = unix.ARPHRD_ETHER
	copy(r.data[:], addr)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

func up(name string, mtu uint32) error {
	err := change(name, unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil })
	if err != nil {
		return err
	}
	return change(name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil })
}
