package guest

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Ids of devices, section 5 of the virtio specification.
const (
	deviceNet    = 1
	deviceSerial = 3
)

// busDir is the bus of all devices.
const busDir = "/sys/bus/virtio"

// virtioBus is the directory of the bus in sysfs.
type virtioBus string

// devices are the names of all devices, in the order in which the kernel found
// them: disks get their names in the order of the probing.
func (b virtioBus) devices() []string {
	names, _ := filepath.Glob(string(b) + "/devices/*") // the pattern is a good one
	for i, name := range names {
		names[i] = filepath.Base(name)
	}
	slices.SortFunc(names, func(x, y string) int { // virtio9 before virtio10
		return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
	})
	return names
}

// has reports whether a device of this id is on the bus.
func (b virtioBus) has(id uint64) bool {
	return slices.ContainsFunc(b.devices(), func(name string) bool {
		text, err := os.ReadFile(filepath.Join(string(b), "devices", name, "device"))
		if err != nil {
			return false
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 32)
		return err == nil && n == id
	})
}

// hold keeps drivers that are loaded from now on from looking at their devices.
func (b virtioBus) hold() error {
	if err := writeFile(filepath.Join(string(b), "drivers_autoprobe"), "0"); err != nil {
		return fmt.Errorf("hold virtio drivers: %w", err)
	}
	return nil
}

// release lets all drivers look at all devices.
func (b virtioBus) release() error {
	err := writeFile(filepath.Join(string(b), "drivers_autoprobe"), "1")
	for _, name := range b.devices() {
		err = errors.Join(err, writeFile(filepath.Join(string(b), "drivers_probe"), name))
	}
	if err != nil {
		return fmt.Errorf("release virtio drivers: %w", err)
	}
	return nil
}
