package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// What a round of the part kvm moves, in bytes, and asks: an emulated machine in an
// emulated machine takes its time.
const (
	kvmBulk      = 16 << 20
	kvmQuestions = 300
)

// ways compares the ways to a guest's servers.
func (r *kvmRunner) ways() error {
	n := &kvmNetworker{bare: netns.None(), networker: networker{
		rooted: r.rooted, guests: map[string]string{}, flags: []string{"--vmm", "firecracker"}, image: storedImage, size: kvmBulk, times: kvmQuestions,
	}}
	err := n.start()
	if err == nil {
		err = n.compareAll()
	}
	err = errors.Join(err, r.end())
	if n.bare.IsOpen() {
		err = errors.Join(err, n.bare.Close())
	}
	return err
}

// kvmNetworker is a networker whose bare TAP device is in a namespace of its own:
// there is no rule of a bridge network in the device's way.
type kvmNetworker struct {
	networker
	bare netns.NsHandle
}

func (n *kvmNetworker) start() error {
	for _, start := range []func() error{n.startBridge, n.startUser, n.startBare} {
		if err := start(); err != nil {
			return err
		}
	}
	return n.await()
}

// startBare starts a guest in a bridge network of its own, and takes its device out
// of there.
func (n *kvmNetworker) startBare() (err error) {
	if _, err := n.micropod("network", "create", "--subnet", bareSubnet, "--gateway", bareHost, bareDevice); err != nil {
		return err
	}
	id, err := n.startGuest("", "--network", bareDevice, "--ip", bareGuest)
	if err != nil {
		return err
	}
	if n.bare, err = newNamespace(); err != nil {
		return err
	}
	n.guests[byBare] = bareGuest + ":"
	n.within = map[string]netns.NsHandle{n.guests[byBare]: n.bare}
	return moveDevice("mp"+id[:12]+"a", n.bare, bareHost+"/24")
}

// moveDevice takes a device to a network namespace, where it has the address.
func moveDevice(name string, ns netns.NsHandle, address string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetNoMaster(dev); err != nil {
		return err
	}
	if err := netlink.LinkSetNsFd(dev, int(ns)); err != nil {
		return err
	}
	there, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer there.Close()
	if dev, err = there.LinkByName(name); err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := there.AddrAdd(dev, a); err != nil {
		return err
	}
	return there.LinkSetUp(dev)
}

// newNamespace makes a network namespace that nobody is in.
func newNamespace() (ns netns.NsHandle, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		ns, err = netns.Get()
		return err
	})
	return ns, err
}

// visit is do in a network namespace. A socket stays where it was made, but its
// reader is not to be bound to a thread: that has its price.
func visit(ns netns.NsHandle, do func() error) func() error {
	return func() error {
		return onThread(func() error {
			if err := netns.Set(ns); err != nil {
				return err
			}
			return do()
		})
	}
}

// onThread does something on a thread that ends with it.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock it
		done <- do()
	}()
	return <-done
}
