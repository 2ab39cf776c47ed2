package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Available is why bridge networks cannot be had here; nil when they can. It
// tries all of it, in a network namespace that lasts as long as the call.
func Available() error {
	if err := capable(); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("TAP devices: %w (the kernel needs its module tun)", err)
	}
	result := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and the namespace
		// with the thread.
		runtime.LockOSThread()
		result <- tryAll()
	}()
	return <-result
}

// capable asks for CAP_NET_ADMIN, which says nothing about a namespace of another
// user, and for the settings of the kernel, which only root can write.
func capable() error {
	if os.Geteuid() != 0 {
		return errors.New("bridge networks need root")
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("ask for capabilities: %w", err)
	}
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}} {
		if data[0].Effective&(1<<c.bit) == 0 {
			return fmt.Errorf("bridge networks need the capability %s", c.name)
		}
	}
	return nil
}

// tryAll makes the tables, a bridge, its gate and its routing rules.
func tryAll() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	t, err := openTables("micropod-try")
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.queueAll(contents{}); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return fmt.Errorf("nftables: %w (the kernel needs nf_tables, for inet with nat, fib, reject and masquerade, and for bridge)", err)
	}
	if err := forgetGuests([]netip.Addr{netip.IPv4Unspecified()}); err != nil {
		return fmt.Errorf("%w (the kernel needs its module nf_conntrack_netlink)", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgePrefix + "try"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("bridge: %w (the kernel needs its module bridge)", err)
	}
	if err := addGate(bridge); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := addRules(attrs.Name); err != nil {
		return fmt.Errorf("%w (the kernel needs policy routing)", err)
	}
	return nil
}
