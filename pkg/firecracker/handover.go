package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// handingOver is a step beside which the devices of vmm.NIC.Device are handed over to
// the caller's network namespace: the kernel takes two of its grace periods to move one,
// in which nothing happens, and a guest does not miss a device that leads nowhere yet.
func (m *machine) handingOver(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		var names []string
		for _, n := range m.config.NICs {
			if n.Device != "" {
				names = append(names, n.Device)
			}
		}
		if len(names) == 0 {
			return run(ctx)
		}
		ours, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("open the network namespace: %w", err)
		}
		defer ours.Close()
		handed := make(chan error)
		go func() { handed <- m.handOver(ours, names) }()
		err = run(ctx)
		if over := <-handed; err == nil && over != nil {
			err = fmt.Errorf("hand the network devices over: %w", over)
		}
		return err
	}
}

// handOver takes devices to a network namespace. Each was made in the VMM's and
// persists there, since Firecracker opens it by its name. From now on it lasts as
// long as Firecracker has it open, and only then it leaves: at no time could a
// device of the host outlive us.
func (m *machine) handOver(ours *os.File, names []string) error {
	for _, name := range names {
		if err := unpersist(m.PID(), name); err != nil {
			return fmt.Errorf("leave the TAP device %s to firecracker: %w", name, err)
		}
	}
	// It is our own child, or its guard is: its number is nobody else's.
	return move(m.proc.cmd.Process.Pid, ours, names)
}

// unpersist makes a process's hold on its TAP device the only one.
func unpersist(pid int, name string) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open the process: %w", err)
	}
	defer unix.Close(process)
	fd, err := queueOf(pid, name)
	if err != nil {
		return err
	}
	tun, err := unix.PidfdGetfd(process, fd, 0) // is close-on-exec
	if err != nil {
		return fmt.Errorf("get its descriptor: %w", err)
	}
	defer unix.Close(tun)
	r, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(tun, unix.TUNGETIFF, r); err != nil || r.Name() != name {
		return fmt.Errorf("its descriptor %d is %q: %w", fd, r.Name(), errors.Join(err, unix.ESTALE))
	}
	return unix.IoctlSetInt(tun, unix.TUNSETPERSIST, 0)
}

// queueOf is the descriptor by which a process has a TAP device open. The file is one
// of that name, in a jail too, and the kernel tells the device's name.
func queueOf(pid int, name string) (int, error) {
	dir := fmt.Sprintf("/proc/%d/fdinfo/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		file, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if err != nil || !strings.HasSuffix(file, "/net/tun") {
			continue
		}
		info, err := os.ReadFile(dir + e.Name())
		if err == nil && strings.Contains(string(info), "\niff:\t"+name+"\n") {
			return strconv.Atoi(e.Name())
		}
	}
	return 0, errors.New("it has no such device open")
}

// move moves devices from a process's network namespace to another.
func move(pid int, ours *os.File, names []string) error {
	theirs, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the VMM's network namespace: %w", err)
	}
	defer theirs.Close()
	h, err := netlink.NewHandleAt(theirs, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("ask for the VMM's network devices: %w", err)
	}
	defer h.Close()
	for _, name := range names {
		dev, err := h.LinkByName(name)
		if err == nil {
			err = h.LinkSetNsFd(dev, int(ours.Fd()))
		}
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("there is a device of that name: %w", err)
		}
		if err != nil {
			return fmt.Errorf("move the TAP device %s: %w", name, err)
		}
	}
	return nil
}
