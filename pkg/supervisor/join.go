package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/events"
)

// The host's part of bridge networks takes a while, and the boot does not depend on
// it. So it is made by a goroutine beside the boot: first all that is not a device
// (network.Joined.Join), then, once the VMM has made the devices, their place in it
// (Plug). A guest that is quicker finds a device that leads nowhere; it is told of
// its networks only when both are done.

// phaseNetwork is the name of what fails when a network cannot be had, whatever else
// was under way by then.
const phaseNetwork = "network"

// networkError is the cause of the end of a boot.
type networkError struct{ err error }

func (e *networkError) Error() string { return e.err.Error() }

// join makes the VM's bridge networks, and ends the boot if they cannot be made.
// Until joined is closed the NICs belong to it.
func (s *supervisor) join() {
	defer close(s.joined)
	err := s.joinBridges()
	if err == nil {
		err = s.plugIn()
	}
	if err != nil {
		s.log.Info("the VM is not in its networks", "err", err)
		s.stopBoot(&networkError{err}) // changes nothing of a boot that is given up already
	}
}

// joinBridges makes what the NICs need on the host, but for their devices.
func (s *supervisor) joinBridges() error {
	for _, n := range s.nics {
		if !n.bridged() {
			continue
		}
		if s.booting.Err() != nil {
			return context.Cause(s.booting)
		}
		begun := time.Now()
		if err := n.joined.Join(s.booting); err != nil {
			return fmt.Errorf("join network %s: %w", n.plan.Name, err)
		}
		s.log.Debug("network made", "network", n.plan.Name, "duration", time.Since(begun))
		s.tellNetwork(events.ActionConnect, n.plan)
		n.told = true
	}
	return nil
}

// plugIn puts the devices into the networks, once the VM has them.
func (s *supervisor) plugIn() error {
	select {
	case <-s.devices:
	case <-s.booting.Done():
		return context.Cause(s.booting)
	}
	for _, n := range s.nics {
		if !n.bridged() {
			continue
		}
		begun := time.Now()
		if err := n.joined.Plug(s.booting); err != nil {
			return s.unplugged(fmt.Errorf("plug into network %s: %w", n.plan.Name, err))
		}
		s.log.Debug("plugged into network", "network", n.plan.Name, "duration", time.Since(begun))
	}
	return nil
}

// unplugged is err, unless the device is gone because the VM has ended: why it has
// is for who waits for its guest to tell.
func (s *supervisor) unplugged(err error) error {
	if errors.Is(err, unix.ENODEV) {
		select {
		case <-s.machine.Done():
		case <-s.booting.Done():
		case <-time.After(s.plan.Limits.Kill):
		}
	}
	if closed(s.machine.Done()) {
		return nil
	}
	return err
}

// awaitJoin waits until the VM is in its networks.
func (s *supervisor) awaitJoin() error {
	if s.joined == nil {
		return nil
	}
	select {
	case <-s.joined:
	case <-s.booting.Done():
	}
	return context.Cause(s.booting)
}
