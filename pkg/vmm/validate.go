package vmm

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
)

// Bounds of a Config. MaxDisks leaves virtio-mmio slots for the other devices.
const (
	MinMemoryMiB  = 32
	MaxMemoryMiB  = 1 << 20
	MaxCPUs       = 32
	MaxDisks      = 16
	MaxNICs       = 4
	MinMTU        = 1280
	MaxMTU        = 65520
	MaxDeviceName = 15 // IFNAMSIZ less the NUL
	MaxSocketPath = 100
	maxID         = 64
	minID         = 12
)

// Validate reports what makes c unusable for every driver. It does not look at
// the host: files may be missing.
func (c Config) Validate() error {
	switch {
	case len(c.ID) < minID || len(c.ID) > maxID || strings.Trim(c.ID, "abcdefghijklmnopqrstuvwxyz0123456789") != "":
		return fmt.Errorf("vm id %q: want %d to %d characters of [a-z0-9]", c.ID, minID, maxID)
	case c.Kernel == "":
		return errors.New("no kernel given")
	case c.Initrd == "":
		return errors.New("no initramfs given")
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("%d vCPUs: want 1 to %d", c.CPUs, MaxCPUs)
	case c.MemoryMiB < MinMemoryMiB || c.MemoryMiB > MaxMemoryMiB:
		return fmt.Errorf("%d MiB of memory: want %d to %d", c.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
	case len(c.Disks) > MaxDisks:
		return fmt.Errorf("%d disks: at most %d", len(c.Disks), MaxDisks)
	case len(c.NICs) > MaxNICs:
		return fmt.Errorf("%d NICs: at most %d", len(c.NICs), MaxNICs)
	case c.VsockPath == "" || len(c.VsockPath) > MaxSocketPath:
		return fmt.Errorf("vsock socket path %q: want 1 to %d bytes", c.VsockPath, MaxSocketPath)
	case c.ConsolePath == "":
		return errors.New("no console file given")
	case c.ConsoleLimit < 0:
		return fmt.Errorf("console limit of %d bytes", c.ConsoleLimit)
	case c.Dir == "":
		return errors.New("no directory for the driver given")
	}
	for i, d := range c.Disks {
		if d.Path == "" {
			return fmt.Errorf("disk %d has no path", i)
		}
		l := d.Limits
		if most := max(l.ReadBytes, l.WriteBytes, l.ReadOps, l.WriteOps); most > MaxDiskLimit {
			return fmt.Errorf("disk %d has a limit of %d a second: at most %d", i, most, uint64(MaxDiskLimit))
		}
	}
	if err := validateNICs(c.NICs); err != nil {
		return err
	}
	for _, a := range c.Args {
		if err := validArg(a); err != nil {
			return err
		}
	}
	return nil
}

// validateNICs looks at each, and whether a guest can tell them apart: it does so
// by their addresses, and by those of a template.
func validateNICs(nics []NIC) error {
	devices, addresses := map[string]bool{}, map[string]bool{}
	for i := range MaxNICs {
		addresses[TemplateMAC(i)] = true
	}
	for _, n := range nics {
		if err := n.validate(); err != nil {
			return err
		}
		if n.Device != "" && devices[n.Device] {
			return fmt.Errorf("two NICs with the device %s", n.Device)
		}
		if addresses[n.MAC] {
			return fmt.Errorf("the address of a NIC, %s, is another one's too, or a template's", n.MAC)
		}
		devices[n.Device], addresses[n.MAC] = true, true
	}
	return nil
}

func (n NIC) validate() error {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil || len(mac) != 6 || mac.String() != n.MAC || mac[0]&1 != 0 || n.MAC == "00:00:00:00:00:00" {
		return fmt.Errorf("bad address of a NIC: %q", n.MAC)
	}
	if n.MTU < MinMTU || n.MTU > MaxMTU {
		return fmt.Errorf("MTU of %d bytes: want %d to %d", n.MTU, MinMTU, MaxMTU)
	}
	if len(n.Device) > MaxDeviceName || strings.Trim(n.Device, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("device of a NIC %q: want at most %d characters of [a-z0-9-]", n.Device, MaxDeviceName)
	}
	return nil
}

// kernelWord is what a kernel argument may hold: printable, nothing that ends
// a word or quotes one.
var kernelWord = regexp.MustCompile(`^[!#-&(-~]+$`)

func validArg(a string) error {
	// "--" would hand the words after it to init.
	if a == "--" || !kernelWord.MatchString(a) {
		return fmt.Errorf("kernel argument %q: want one word without quotes", a)
	}
	return nil
}
