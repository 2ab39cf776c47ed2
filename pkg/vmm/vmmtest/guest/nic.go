package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

// nic brings the network device with an address up and returns every frame of
// the suite's kind to its sender.
func nic(mac, mtu string) (string, error) {
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

func up(name string, mtu uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, r); err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
