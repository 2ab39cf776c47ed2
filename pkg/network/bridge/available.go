package bridge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Available is why bridge networks cannot be had here; nil when they can. It
// tries all of it, in a network namespace that lasts as long as the call: some ten
// milliseconds.
func Available() error {
	if err := Permitted(); err != nil {
		return err
	}
	if err := reachable(); err != nil {
		return err
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

// reachable asks for what the administrator of a container can keep from its root:
// the device of TAP devices, and the settings of the kernel.
func reachable() error {
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("TAP devices: %w (the kernel needs its module tun)", err)
	}
	tun.Close()
	const ofDevices, forward = "ipv4/conf/default/rp_filter", "ipv4/ip_forward"
	for _, name := range []string{ofDevices, forward} {
		path := filepath.Join(sysctlDir, name)
		if err := unix.Access(path, unix.W_OK); err != nil && !(name == forward && isOn(forward)) {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}

// Why is the reason of an error of a Host: that bridge networks cannot be had here, if
// they cannot, else the error itself.
func Why(err error) error {
	if err == nil || errors.Is(err, ErrInUse) {
		return err
	}
	if why := Available(); why != nil {
		return fmt.Errorf("%w (--network user works without)", why)
	}
	return err
}

// Permitted is why this process may not make bridge networks; nil when it may. It
// asks for root, who alone writes the kernel's settings, and for capabilities, which
// say nothing about a namespace of another user.
func Permitted() error {
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

// tryAll makes the tables, a bridge, its gate and its routing rules, and asks for the
// rules of others.
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
	if err := deleteFlows(map[netlink.InetFamily]bool{unix.AF_INET: true}, func(*netlink.ConntrackFlow) bool { return false }); err != nil {
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
	_, err = FindDrops()
	return err
}
