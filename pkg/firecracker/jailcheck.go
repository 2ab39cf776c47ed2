package firecracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// noJailHint is the way out for who does not want a jail.
const noJailHint = "turn the jailer off with --jailer=false"

// jailed reports whether VMs get a jail: only root can make one.
func (d *Driver) jailed() bool { return d.host.root && !d.o.NoJail }

// newJail returns the jail for one VM, nil when there is none to be.
func (d *Driver) newJail(ctx context.Context, binary string, log *slog.Logger) (*jail, Version, error) {
	if !d.jailed() {
		return nil, Version{}, nil
	}
	jailer, v, err := d.checkJail(ctx, binary)
	if err != nil {
		return nil, v, err
	}
	// The jailer names the jail after what a link leads to.
	if binary, err = filepath.EvalSymlinks(binary); err != nil {
		return nil, v, err
	}
	return &jail{jailer: jailer, binary: binary, guard: d.o.Guard, host: d.host, ids: d.o.JailIDs, log: log}, v, nil
}

// probeJail says how VMs will be kept from the host, or why they cannot be.
// Without a binary, or one of unknown release, there is nothing to hold the
// jailer against.
func (d *Driver) probeJail(ctx context.Context, binary string, v Version) (wall string, err error) {
	switch {
	case !d.host.root:
		return "no jailer without root: VMMs run as this user, behind seccomp filters, without cgroup limits", nil
	case d.o.NoJail:
		return "the jailer is off: VMMs run as root, behind seccomp filters, without cgroup limits", nil
	case v == Version{}:
		return "", nil
	}
	_, jailer, err := d.checkJail(ctx, binary)
	if err == nil {
		err = sameRelease(jailer, v)
	}
	if err != nil {
		return "", err
	}
	in, err := d.host.hierarchies()
	if err != nil {
		return "", err
	}
	wall = fmt.Sprintf("each VMM in a jail with a user of its own (%s)", d.o.JailIDs)
	if missing := unlimited(in); len(missing) > 0 {
		wall += ", without limits that this host has no cgroup controller for: " + strings.Join(missing, ", ")
	}
	return wall, nil
}

// checkJail looks at all that a jail needs, and returns the jailer with its
// release.
func (d *Driver) checkJail(ctx context.Context, binary string) (jailer string, v Version, err error) {
	if len(d.o.Guard) == 0 {
		return "", v, &problem{"the program names no guard for jails", noJailHint}
	}
	if err := d.host.checkRights(); err != nil {
		return "", v, err
	}
	ids := d.o.JailIDs
	if err := errors.Join(ids.check(), ids.taken(d.host.etc), ids.mapped(d.host.proc)); err != nil {
		return "", v, &problem{err.Error(), "choose another range with --jail-ids, or " + noJailHint}
	}
	if err := d.host.checkCgroups(); err != nil {
		return "", v, &problem{fmt.Sprintf("cgroups for jails: %v", err), noJailHint}
	}
	if jailer, err = d.lookupJailer(binary); err != nil {
		return "", v, err
	}
	for _, program := range []string{binary, jailer} {
		path, err := filepath.EvalSymlinks(program)
		if err == nil {
			err = checkTrusted(path)
		}
		if err != nil {
			return "", v, &problem{err.Error(), noJailHint}
		}
	}
	v, err = versionOf(ctx, jailer)
	return jailer, v, err
}

// lookupJailer finds the jailer that came with Firecracker.
func (d *Driver) lookupJailer(binary string) (string, error) {
	names := []string{d.o.Jailer}
	if d.o.Jailer == "" {
		names = []string{filepath.Join(filepath.Dir(binary), "jailer"), "jailer"}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", &problem{fmt.Sprintf("jailer not available, which root needs: looked for %s", strings.Join(names, " and on PATH for ")),
		downloadHint + ", or " + noJailHint}
}

// sameRelease returns an error unless jailer and Firecracker belong together.
func sameRelease(jailer, firecracker Version) error {
	if jailer == firecracker {
		return nil
	}
	return &problem{fmt.Sprintf("jailer is version %s, firecracker %s: they must be of the same release", jailer, firecracker),
		downloadHint + ", or " + noJailHint}
}

// checkRights looks for what a container may have taken from its root.
func (h host) checkRights() error {
	need := []struct {
		bit  uint
		name string
	}{
		{unix.CAP_SYS_ADMIN, "SYS_ADMIN"}, {unix.CAP_SYS_CHROOT, "SYS_CHROOT"}, {unix.CAP_MKNOD, "MKNOD"},
		{unix.CAP_CHOWN, "CHOWN"}, {unix.CAP_FOWNER, "FOWNER"}, {unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE"},
		{unix.CAP_SETUID, "SETUID"}, {unix.CAP_SETGID, "SETGID"}, {unix.CAP_KILL, "KILL"},
	}
	effective, err := h.capabilities()
	if err != nil {
		return &problem{fmt.Sprintf("read the capabilities: %v", err), ""}
	}
	var missing []string
	for _, c := range need {
		if effective&(1<<c.bit) == 0 {
			missing = append(missing, "CAP_"+c.name)
		}
	}
	if len(missing) > 0 {
		return &problem{"this root may not do what the jailer does: it lacks " + strings.Join(missing, ", "), noJailHint}
	}
	return nil
}

// checkCgroups says why the cgroups that this host has cannot be used.
func (h host) checkCgroups() error {
	in, err := h.hierarchies()
	for i := 0; err == nil && i < len(in); i++ {
		err = in[i].check()
	}
	return err
}

// capabilities are the effective ones of this process.
func capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, err
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// idLeases is where ids are claimed, for all roots of the host.
func (h host) idLeases() string { return filepath.Join(h.run, "jail-ids") }

func (h host) cgroupLock() string { return filepath.Join(h.run, "cgroup.lock") }

func (h host) hierarchies() ([]hierarchy, error) {
	f, err := os.Open(filepath.Join(h.proc, "self", "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return hierarchies(f)
}
