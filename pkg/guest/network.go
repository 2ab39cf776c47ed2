package guest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	defer unix.Close(fd)
	if err := (nic{fd, "lo"}).up(); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// setUpNetwork configures the NICs of the boot as the host says.
func setUpNetwork(nics []api.NIC) error {
	if len(nics) == 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := takeAddresses(fd, "/sys/class/net", nics); err != nil {
		return err
	}
	if err := nameNICs(fd, nics); err != nil {
		return err
	}
	for i, n := range nics {
		d := nic{fd, nicName(i)}
		if err := d.configure(n); err != nil {
			return fmt.Errorf("network device %s: %w", d.name, err)
		}
	}
	return nil
}

func nicName(i int) string { return fmt.Sprintf("eth%d", i) }

// nameNICs gives the devices the names of their places in the list: which one
// the kernel found first is the VMM's business.
func nameNICs(fd int, nics []api.NIC) error {
	names := make([]string, len(nics))
	for i, n := range nics {
		var err error
		if names[i], err = findNIC("/sys/class/net", n.MAC); err != nil {
			return err
		}
	}
	// Out of each other's way first.
	for _, aside := range []bool{true, false} {
		for i, name := range names {
			to := nicName(i)
			if name == to {
				continue
			}
			if aside {
				to = "aside" + to
			}
			if err := (nic{fd, name}).rename(to); err != nil {
				return fmt.Errorf("rename network device %s to %s: %w", name, to, err)
			}
			names[i] = to
		}
	}
	return nil
}

// findNIC returns the name of the device with an address.
func findNIC(dir, mac string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "address"))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == mac {
			return filepath.Base(filepath.Dir(f)), nil
		}
	}
	return "", fmt.Errorf("no network device has the address %q (kernel without virtio_net?)", api.Clean(mac, 32))
}

// ifreq is the kernel's struct of that name, on 64-bit machines
// (include/uapi/linux/if.h).
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	value [24]byte
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// nic is a network device, with a socket to ask for it: netdevice(7).
type nic struct {
	fd   int
	name string
}

func (d nic) configure(n api.NIC) error {
	if err := d.set(unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(uint32(n.MTU)); return nil }); err != nil {
		return fmt.Errorf("set MTU %d: %w", n.MTU, err)
	}
	// Before it is up: that is when the kernel would begin to talk IPv6.
	if err := d.prepare6(n.Address6 != ""); err != nil {
		return err
	}
	if err := d.up(); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	if n.Address != "" {
		if err := d.configure4(n); err != nil {
			return err
		}
	}
	if n.Address6 != "" {
		return d.configure6(n)
	}
	return nil
}

func (d nic) configure4(n api.NIC) error {
	addr, err := netip.ParsePrefix(n.Address)
	if err != nil || !addr.Addr().Is4() {
		return fmt.Errorf("bad address %q", api.Clean(n.Address, 64))
	}
	if err := d.setAddr(unix.SIOCSIFADDR, addr.Addr()); err != nil {
		return fmt.Errorf("set address %s: %w", addr, err)
	}
	if err := d.setAddr(unix.SIOCSIFNETMASK, netmask(addr.Bits())); err != nil {
		return fmt.Errorf("set netmask of %s: %w", addr, err)
	}
	return d.route4(n)
}

// route4 makes the IPv4 gateway, if there is one, the next hop of everything.
func (d nic) route4(n api.NIC) error {
	if n.Gateway == "" {
		return nil
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("bad gateway %q", api.Clean(n.Gateway, 64))
	}
	return d.route(gateway)
}

func (d nic) set(request uint, fill func(*unix.Ifreq) error) error {
	r, err := unix.NewIfreq(d.name)
	if err != nil {
		return err
	}
	if err := fill(r); err != nil {
		return err
	}
	return unix.IoctlIfreq(d.fd, request, r)
}

func (d nic) setAddr(request uint, a netip.Addr) error {
	return d.set(request, func(r *unix.Ifreq) error { return r.SetInet4Addr(a.AsSlice()) })
}

// rename names a device that is down.
func (d nic) rename(to string) error {
	var r ifreq
	copy(r.name[:unix.IFNAMSIZ-1], d.name)
	copy(r.value[:unix.IFNAMSIZ-1], to)
	return ioctl(d.fd, unix.SIOCSIFNAME, unsafe.Pointer(&r))
}

func (d nic) up() error {
	r, err := unix.NewIfreq(d.name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(d.fd, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(d.fd, unix.SIOCSIFFLAGS, r)
}

func netmask(bits int) netip.Addr {
	m := uint32(0xffffffff) << (32 - bits)
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}

// rtentry is the kernel's struct of that name on 64-bit machines
// (include/uapi/linux/route.h).
type rtentry struct {
	_       uint64
	dst     unix.RawSockaddrInet4
	gateway unix.RawSockaddrInet4
	genmask unix.RawSockaddrInet4
	flags   uint16
	_       [6]byte
	_       uint64
	_       uint64
	metric  int16
	_       [6]byte
	dev     uintptr
	mtu     uint64
	window  uint64
	irtt    uint16
	_       [6]byte
}

const (
	routeUp      = 1 // RTF_UP
	routeGateway = 2 // RTF_GATEWAY
)

// route makes gateway the next hop of everything.
func (d nic) route(gateway netip.Addr) error {
	r := rtentry{
		dst:     unix.RawSockaddrInet4{Family: unix.AF_INET},
		gateway: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: gateway.As4()},
		genmask: unix.RawSockaddrInet4{Family: unix.AF_INET},
		flags:   routeUp | routeGateway,
	}
	if err := ioctl(d.fd, unix.SIOCADDRT, unsafe.Pointer(&r)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("route over %s: %w", gateway, err)
	}
	return nil
}
