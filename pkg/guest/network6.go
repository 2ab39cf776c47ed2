package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// prepare6 makes a device that is down ready for the addresses that the host
// chose, or keeps IPv6 off it. What is on the link tells the guest nothing: no
// router's advertisement, no redirect
// (https://docs.kernel.org/networking/ip-sysctl.html).
func (d nic) prepare6(wanted bool) error {
	settings := map[string]string{"disable_ipv6": "1"}
	if wanted {
		// The host gives each address once: nobody has to be asked, and nothing
		// waits a second for the answer.
		settings = map[string]string{"disable_ipv6": "0", "accept_ra": "0", "autoconf": "0", "accept_redirects": "0", "accept_dad": "0"}
	}
	for key, value := range settings {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+d.name+"/"+key, []byte(value), 0)
		if errors.Is(err, fs.ErrNotExist) && !wanted {
			return nil // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("prepare IPv6 (kernel without it?): %w", err)
		}
	}
	return nil
}

// configure6 is for a device that is up.
func (d nic) configure6(n api.NIC) error {
	addr, err := netip.ParsePrefix(n.Address6)
	if err != nil || !isIPv6(addr.Addr()) {
		return fmt.Errorf("bad address %q", api.Clean(n.Address6, 64))
	}
	dev, err := net.InterfaceByName(d.name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r := in6Ifreq{addr: addr.Addr().As16(), bits: uint32(addr.Bits()), dev: int32(dev.Index)}
	if err := ioctl(fd, unix.SIOCSIFADDR, unsafe.Pointer(&r)); err != nil {
		return fmt.Errorf("set address %s: %w", addr, err)
	}
	return d.route6(n)
}

// route6 makes the IPv6 gateway, if there is one, the next hop of everything.
func (d nic) route6(n api.NIC) error {
	if n.Gateway6 == "" {
		return nil
	}
	gateway, err := netip.ParseAddr(n.Gateway6)
	if err != nil || !isIPv6(gateway) {
		return fmt.Errorf("bad gateway %q", api.Clean(n.Gateway6, 64))
	}
	dev, err := net.InterfaceByName(d.name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Everything: a destination of no bits.
	route := in6Rtmsg{gateway: gateway.As16(), metric: 1, flags: routeUp | routeGateway, dev: int32(dev.Index)}
	if err := ioctl(fd, unix.SIOCADDRT, unsafe.Pointer(&route)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("route over %s: %w", gateway, err)
	}
	return nil
}

func isIPv6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() && a.Zone() == "" }

// in6Ifreq is the kernel's struct in6_ifreq (include/uapi/linux/ipv6.h).
type in6Ifreq struct {
	addr [16]byte
	bits uint32
	dev  int32
}

// in6Rtmsg is the kernel's struct in6_rtmsg on 64-bit machines
// (include/uapi/linux/ipv6_route.h).
type in6Rtmsg struct {
	dst, src, gateway [16]byte
	kind              uint32
	dstBits, srcBits  uint16
	metric            uint32
	_                 [4]byte
	info              uint64
	flags             uint32
	dev               int32
}
