package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Leftover is what is on the host of a VM that is no more.
type Leftover struct {
	// What it is: rules, a device or a bridge.
	What What
	// VM is its id; "" for a bridge, or a routing rule of one, that no VM is
	// joined to.
	VM string
	// Devices are the names of the VM's devices, or the bridge's.
	Devices []string
}

// What says what a Leftover is.
type What string

// All that there is of it.
const (
	// LeftRules are elements of the tables, with the devices if they are there.
	LeftRules What = "rules of"
	// LeftDevice is a device of which the tables know nothing.
	LeftDevice What = "device"
	// LeftBridge is a bridge, or a routing rule of one.
	LeftBridge What = "bridge"
)

// String says what it is.
func (l Leftover) String() string { return string(l.What) + " " + strings.Join(l.Devices, ", ") }

// Leftovers are what is there of VMs that living is not true of, and of bridges
// without endpoints that are not reserved. Both are called under the lock. It changes
// nothing; Remove does.
func (h Host) Leftovers(living, reserved func(string) bool) (all []Leftover, err error) {
	err = h.locked(func(x *transaction) error {
		of := map[string]int{}
		for _, p := range x.have.parts() {
			if living(p.vm) {
				continue
			}
			i, ok := of[p.vm]
			if !ok {
				i, all = len(all), append(all, Leftover{What: LeftRules, VM: p.vm})
				of[p.vm] = i
			}
			all[i].Devices = append(all[i].Devices, p.device)
		}
		strays, err := x.strayPorts(living)
		if err != nil {
			return err
		}
		for _, p := range strays {
			all = append(all, Leftover{What: LeftDevice, VM: p.vm, Devices: []string{p.device}})
		}
		stale, err := x.unusedBridges(reserved)
		for _, b := range stale {
			all = append(all, Leftover{What: LeftBridge, Devices: []string{b}})
		}
		return err
	})
	return all, err
}

// Remove takes away what Leftovers finds.
func (h Host) Remove(living, reserved func(string) bool) error {
	return h.locked(func(x *transaction) error {
		strays, err := x.strayPorts(living)
		if err != nil {
			return err
		}
		for _, p := range strays {
			if err := removePort(p.device); err != nil {
				return err
			}
		}
		stale, err := x.unusedBridges(reserved)
		if err != nil {
			return err
		}
		return x.leave(func(p part) bool { return !living(p.vm) }, stale, nil)
	})
}

// unusedBridges are those that the tables have no endpoint of. Tables that are not
// whole may have lost some, but a bridge with ports is none that is left over: what
// there is of ports without a VM is removed before.
func (x *transaction) unusedBridges(reserved func(bridge string) bool) ([]string, error) {
	stale, err := x.staleBridges(x.have, reserved)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, b := range stale {
		unused, err := x.unused(b, "")
		if err != nil {
			return nil, err
		}
		all = append(all, unused...)
	}
	return all, nil
}

// A VMM's TAP device ends with the VMM, unless that has made it persistent
// (TUNSETPERSIST), as one that a guest has taken over could. Firecracker's own filter
// of system calls lets it not. Such a device leads nowhere without its rules, but it
// would be there for ever.

// alias is what `ip link` says of a port of a VM: by that it is found again.
func (h Host) alias(vm string) string { return h.Table + " " + vm }

// strayPorts are the devices of VMs that living is not true of, and that the tables
// know nothing of.
func (x *transaction) strayPorts(living func(vm string) bool) ([]part, error) {
	links, err := consistent(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	known := x.have.parts()
	var all []part
	for _, l := range links {
		vm, ours := strings.CutPrefix(l.Attrs().Alias, x.host.alias(""))
		p := part{vm, l.Attrs().Name}
		if ours && madeByVMM(l) && !slices.Contains(known, p) && !living(vm) {
			all = append(all, p)
		}
	}
	return all, nil
}

func madeByVMM(l netlink.Link) bool { return l.Type() == "tuntap" }

// removePort takes away the device of a VM that has ended, if it is there still.
func removePort(device string) error {
	link, err := find(device)
	if err == nil && link != nil && madeByVMM(link) {
		err = netlink.LinkDel(link)
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("delete device %s: %w", device, err)
	}
	return nil
}

// unplugPort takes a device out of its bridge, and down. Its alias stays, by which it is
// found if it outlives its VMM.
func unplugPort(device string) error {
	link, err := find(device)
	if err == nil && link != nil && madeByVMM(link) {
		err = errors.Join(netlink.LinkSetDown(link), netlink.LinkSetNoMaster(link))
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("unplug device %s: %w", device, err)
	}
	return nil
}
