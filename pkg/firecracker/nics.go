package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// checkNICs says what of c's network cannot be here. The guard is the program's.
func checkNICs(c vmm.Config, guard []string) error {
	if len(c.NICs) > 0 && len(guard) == 0 {
		return errors.New("a network takes a guard, and this program has none")
	}
	for _, n := range c.NICs {
		// Of a user namespace no device can leave.
		if n.Device != "" && os.Geteuid() != 0 {
			return fmt.Errorf("make the TAP device %s: it takes root", n.Device)
		}
	}
	return nil
}

// Link is the host's end of the i-th NIC; see vmm.Linker.
func (m *machine) Link(i int) *os.File {
	if m.config.NICs[i].Device != "" {
		return nil
	}
	before := 0
	for _, n := range m.config.NICs[:i] {
		if n.Device == "" {
			before++
		}
	}
	return m.links[before]
}

// guarded is c as a Firecracker sees it that has inherited the directories of its
// sockets and, named, finds the disks there too.
func guarded(c vmm.Config, named bool) vmm.Config {
	c.VsockPath = inherited(guardVsockDir, filepath.Base(c.VsockPath))
	if !named {
		return c
	}
	c.Disks = slices.Clone(c.Disks)
	for i := range c.Disks {
		c.Disks[i].Path = inherited(guardDir, diskName(i))
	}
	return c
}

// openDirs opens the directories of the sockets for Firecracker, in their places
// among what a process inherits. The caller closes them.
func (m *machine) openDirs() ([]*os.File, error) {
	files := make([]*os.File, guardVsockDir-2)
	for fd, path := range map[int]string{guardDir: m.config.Dir, guardVsockDir: filepath.Dir(m.config.VsockPath)} {
		dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			closeFiles(files)
			return nil, err
		}
		files[fd-3] = dir
	}
	return files, nil
}

// startAlone runs Firecracker as we are, and without a network.
func (m *machine) startAlone(stdout, stderr *os.File) (*process, error) {
	c := command{path: m.binary, args: m.args(), stdout: stdout, stderr: stderr}
	if m.named {
		var err error
		if c.inherits, err = m.openDirs(); err != nil {
			return nil, err
		}
		defer closeFiles(c.inherits)
	}
	return startProcess(c)
}

// startWithNetwork runs Firecracker without a jail, in a network namespace of
// its own, and unless we are root in a user namespace: only that takes a guard.
func (m *machine) startWithNetwork(ctx context.Context, stdout, stderr *os.File) (*process, error) {
	dirs, err := m.openDirs()
	if err != nil {
		return nil, err
	}
	defer closeFiles(dirs)
	c := command{stdout: stdout, stderr: stderr, inherits: slices.Clone(dirs)}
	api, log := filepath.Base(m.files.api), filepath.Base(m.files.log)
	args := append([]string{"--id", m.config.ID}, m.argsFor(inherited(guardDir, api), inherited(guardDir, log))...)
	devices := taps(m.config, os.Geteuid())
	if os.Geteuid() == 0 {
		c.path, c.args, c.taps = m.binary, args, devices
		return startProcess(c)
	}
	c.unprivileged = true
	s := guardSpec{Taps: devices, Exec: true, Parent: os.Getpid(), Command: append([]string{m.binary}, args...)}
	p, err := startGuard(ctx, m.guard, s, c)
	if err != nil {
		err = forbidden(err, "/proc/sys")
	}
	return p, err
}

// forbidden adds to an error that comes of a host without user namespaces for
// ordinary users which setting that is, and what to do.
func forbidden(err error, sysctls string) error {
	// EPERM: not for you; ENOSPC: no more of them.
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	var found []string
	for _, s := range []struct{ name, value string }{
		{"kernel.apparmor_restrict_unprivileged_userns", "1"}, // Ubuntu
		{"kernel.unprivileged_userns_clone", "0"},             // Debian
		{"user.max_user_namespaces", "0"},
		{"user.max_net_namespaces", "0"},
	} {
		path := filepath.Join(sysctls, strings.ReplaceAll(s.name, ".", "/"))
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == s.value {
			found = append(found, s.name+"="+s.value)
		}
	}
	by := ""
	if len(found) > 0 {
		by = " (" + strings.Join(found, ", ") + ")"
	}
	return fmt.Errorf("%w: without root a network takes a user namespace, which this host forbids%s: use --network none, or run as root", err, by)
}
