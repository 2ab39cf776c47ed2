package bridge

import (
	"errors"
	"fmt"
	"slices"
)

// Restore makes the tables, the bridges and their ports what all endpoints need,
// after somebody flushed the rules or deleted a bridge: the tables in one
// transaction, so that connections go on. What is there of other endpoints goes.
// A device that is not there is none of a VM that runs, and is left out. A bridge
// without endpoints stays if it is reserved: somebody is about to join.
//
// All and reserved are called under the lock: an endpoint that is recorded before it
// joins cannot be lost to a Restore that runs meanwhile.
func (h Host) Restore(all func() ([]Endpoint, error), reserved func(bridge string) bool) error {
	return h.locked(func(x *transaction) error {
		endpoints, err := all()
		if err != nil {
			return err
		}
		want, err := contentsOf(endpoints)
		if err != nil {
			return err
		}
		stale, err := x.staleBridges(want, reserved)
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

// Intact is that there is nothing to Restore: all endpoints whose device was plugged
// in have what they need, and nobody has anything who is not in all. Of any other the
// VM is about to start, perhaps with its device there already, or has ended: it has
// what it needs, a part of that or nothing, and whoever starts or ends it does the
// rest. So many that start at once do not take each other for a firewall that was
// flushed.
//
// It looks at the sets and counts the rules. All and reserved are those of Restore.
func (h Host) Intact(all func() ([]Endpoint, error), reserved func(bridge string) bool) (intact bool, err error) {
	err = h.locked(func(x *transaction) error {
		endpoints, err := all()
		if err != nil {
			return err
		}
		plugged, err := h.pluggedIn()
		if err != nil {
			return err
		}
		may, err := contentsOf(endpoints)
		if err != nil {
			return err
		}
		unplugged := func(e Endpoint) bool { return !plugged[e.part()] }
		must, err := contentsOf(slices.DeleteFunc(slices.Clone(endpoints), unplugged))
		if err != nil {
			return err
		}
		ours, err := h.bridges()
		if err != nil {
			return err
		}
		free := slices.DeleteFunc(missing(ours, may.bridges()), reserved)
		intact = (x.whole || must.empty()) && len(must.minus(x.have)) == 0 && len(x.have.minus(may)) == 0 &&
			len(missing(must.bridges(), ours)) == 0 && len(free) == 0
		return nil
	})
	return intact, err
}

// missing are those of some that are not among others. Pure.
func missing(some, others []string) []string {
	return slices.DeleteFunc(slices.Clone(some), func(s string) bool { return slices.Contains(others, s) })
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
		link, err := bridgeOf(e.Network)
		if err == nil {
			err = x.host.plug(e, link)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// staleBridges are the bridges, and devices with a routing rule, that want has no
// endpoint of and that are not reserved.
func (x *transaction) staleBridges(want contents, reserved func(bridge string) bool) ([]string, error) {
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
	return slices.DeleteFunc(stale, reserved), nil
}
