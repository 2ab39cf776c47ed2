package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Restore makes the tables, the bridges and their ports what all endpoints need,
// after somebody flushed the rules or deleted a bridge: the tables in one
// transaction, so that connections go on. What is there of other endpoints goes.
// A device that is not there is none of a VM that runs, and is left out.
//
// All is called under the lock: an endpoint that is recorded before it joins
// cannot be lost to a Restore that runs meanwhile.
func (h Host) Restore(all func() ([]Endpoint, error)) error {
	return h.locked(func(x *transaction) error {
		endpoints, err := all()
		if err != nil {
			return err
		}
		want, err := contentsOf(endpoints)
		if err != nil {
			return err
		}
		stale, err := x.staleBridges(want)
		if err != nil {
			return err
		}
		for _, b := range stale {
			if err := h.removeBridge(b); err != nil {
				return err
			}
		}
		x.whole = false // all of it is made anew: a rule may have been changed
		if err := x.set(want); err != nil {
			return err
		}
		return x.replug(endpoints)
	})
}

// Intact is that all endpoints have what they need, and nobody else has anything:
// there is nothing to Restore. It looks at the sets and counts the rules.
func (h Host) Intact(all []Endpoint) (intact bool, err error) {
	want, err := contentsOf(all)
	if err != nil {
		return false, err
	}
	err = h.locked(func(x *transaction) error {
		ours, err := h.bridges()
		if err != nil {
			return err
		}
		intact = (x.whole || want.empty()) && len(want.minus(x.have)) == 0 && len(x.have.minus(want)) == 0 &&
			slices.Equal(slices.Sorted(slices.Values(ours)), want.bridges())
		return nil
	})
	return intact, err
}

func contentsOf(all []Endpoint) (contents, error) {
	c := contents{}
	for _, e := range all {
		if err := e.validate(); err != nil {
			return nil, fmt.Errorf("endpoint of %.100q: %w", e.VM, err)
		}
		c.add(e)
	}
	return c, nil
}

// replug makes each bridge, and plugs what is there. One that cannot be does not
// keep the others from it.
func (x *transaction) replug(all []Endpoint) error {
	made := map[string]error{}
	var errs []error
	for _, e := range all {
		bridge := e.Network.Device()
		err, done := made[bridge]
		if !done {
			err = x.host.makeBridge(e.Network)
			made[bridge] = err
			errs = append(errs, err)
		}
		if err != nil {
			continue
		}
		if link, err := find(e.Device); err != nil || link == nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, plug(e))
	}
	return errors.Join(errs...)
}

// staleBridges are the bridges, and devices with a routing rule, that want has no
// endpoint of.
func (x *transaction) staleBridges(want contents) ([]string, error) {
	ours, err := x.host.bridges()
	if err != nil {
		return nil, err
	}
	ruled, err := ruledBridges()
	if err != nil {
		return nil, err
	}
	needed := want.bridges()
	var stale []string
	for _, b := range slices.Concat(ours, x.have.known()) {
		if !slices.Contains(needed, b) && !slices.Contains(stale, b) {
			stale = append(stale, b)
		}
	}
	for _, b := range ruled {
		link, err := find(b)
		if err != nil {
			return nil, err
		}
		// Whose it was is not known, but nobody has a rule before he has the bridge.
		if link == nil && !slices.Contains(needed, b) && !slices.Contains(stale, b) {
			stale = append(stale, b)
		}
	}
	return stale, nil
}

// Leftover is what is on the host of a VM that is no more.
type Leftover struct {
	// VM is its id; "" for a bridge, or a routing rule of one, that no VM is
	// joined to.
	VM string
	// Devices are the names of its devices, or the bridge's.
	Devices []string
}

// String says what it is.
func (l Leftover) String() string {
	if l.VM == "" {
		return "bridge " + strings.Join(l.Devices, ", ")
	}
	return "rules of " + strings.Join(l.Devices, ", ")
}

// Leftovers are what is there of VMs that living is not true of. It changes
// nothing; Remove does.
func (h Host) Leftovers(living func(vm string) bool) (all []Leftover, err error) {
	err = h.locked(func(x *transaction) error {
		of := map[string]int{}
		for _, p := range x.have.parts() {
			if living(p.vm) {
				continue
			}
			i, ok := of[p.vm]
			if !ok {
				i, all = len(all), append(all, Leftover{VM: p.vm})
				of[p.vm] = i
			}
			all[i].Devices = append(all[i].Devices, p.device)
		}
		stale, err := x.unusedBridges()
		for _, b := range stale {
			all = append(all, Leftover{Devices: []string{b}})
		}
		return err
	})
	return all, err
}

// Remove takes away what is there of VMs that living is not true of, and bridges
// that no VM is joined to.
func (h Host) Remove(living func(vm string) bool) error {
	return h.locked(func(x *transaction) error {
		stale, err := x.unusedBridges()
		if err != nil {
			return err
		}
		return x.leave(func(p part) bool { return !living(p.vm) }, stale, nil)
	})
}

// unusedBridges are those that the tables have no endpoint of. Tables that are not
// whole may have lost some, but a bridge with ports is none that is left over: a
// VM's device ends with the VM.
func (x *transaction) unusedBridges() ([]string, error) {
	stale, err := x.staleBridges(x.have)
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
