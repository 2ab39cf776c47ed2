package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// takeAddresses gives the devices in dir that still have their template's
// address their own.
func takeAddresses(fd int, dir string, nics []api.NIC) error {
	for _, n := range nics {
		if n.TemplateMAC == "" {
			continue
		}
		name, err := findNIC(dir, n.TemplateMAC)
		if err != nil {
			continue // it has its own already, or there is none, which is told later
		}
		if err := (nic{fd, name}).setMAC(n.MAC); err != nil {
			return fmt.Errorf("give network device %s the address %q: %w", name, api.Clean(n.MAC, 32), err)
		}
	}
	return nil
}

// setMAC gives the device an address, which the VMM learns of the driver.
func (d nic) setMAC(text string) error {
	mac, err := net.ParseMAC(text)
	if err == nil && len(mac) != 6 {
		err = errors.New("not of Ethernet")
	}
	if err != nil {
		return err
	}
	var r ifreq
	copy(r.name[:unix.IFNAMSIZ-1], d.name)
	// A struct sockaddr: the family, then the address.
	binary.NativeEndian.PutUint16(r.value[:], unix.ARPHRD_ETHER)
	copy(r.value[2:], mac)
	return ioctl(d.fd, unix.SIOCSIFHWADDR, unsafe.Pointer(&r))
}
