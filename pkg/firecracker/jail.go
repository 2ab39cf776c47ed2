package firecracker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// jailDir is the directory in Config.Dir under which the jailer works. What is
// in there goes with Config.Dir, should nobody be left to clean up.
const jailDir = "jail"

// jail is the place of one VMM: a user of its own, a root directory, cgroups
// and, by the guard that starts it, pid, mount and network namespaces.
type jail struct {
	jailer string
	binary string // Firecracker's
	guard  []string
	host   host
	ids    IDRange
	log    *slog.Logger
	onEnd  func(what string, f func() error)

	template string // that the VM goes on from, "": it boots

	base    string // real path of jailDir
	root    string // the jail's root directory
	dir     int    // root, opened
	lease   *idLease
	cgroups cgroups
	binds   []bind
	oom     bool // at the end: the kernel killed for want of memory
}

// id is the number of the jail's user and group.
func (j *jail) id() int { return int(j.lease.id) }

// build makes the jail for c, with everything in it that Firecracker needs but
// what the jailer itself puts there.
func (j *jail) build(c vmm.Config) error {
	if err := j.makeRoot(c); err != nil {
		return err
	}
	var err error
	if j.lease, err = leaseID(j.host.idLeases(), j.ids, c.ID); err != nil {
		return fmt.Errorf("lease a user id: %w", err)
	}
	j.onEnd("give the user id back", j.lease.release)
	if err := j.handIn(c); err != nil {
		return err
	}
	if err := j.handInListeners(c.VsockPath); err != nil {
		return err
	}
	return j.makeCgroups(c)
}

// makeRoot makes the root directory, fresh: the jailer cannot use one twice,
// and believes in what it finds (CVE-2026-1386).
func (j *jail) makeRoot(c vmm.Config) error {
	// Not by way of a descriptor: the jailer has other ones.
	dir, err := filepath.EvalSymlinks(c.Dir)
	if err != nil {
		return err
	}
	if err := checkTrusted(dir); err != nil {
		return &problem{err.Error(), noJailHint}
	}
	j.base = filepath.Join(dir, jailDir)
	if err := removeOld(j.base); err != nil {
		return err
	}
	j.onEnd("remove the jail", func() error { return os.RemoveAll(j.base) })
	j.root = filepath.Join(j.base, filepath.Base(j.binary), c.ID, "root")
	for _, d := range []string{j.base, filepath.Dir(filepath.Dir(j.root)), filepath.Dir(j.root), j.root} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	if j.dir, err = unix.Open(j.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return &fs.PathError{Op: "open", Path: j.root, Err: err}
	}
	j.onEnd("close the jail", func() error { return unix.Close(j.dir) })
	return nil
}

// removeOld removes what a VM that was killed left. A link is nobody's leftover.
func removeOld(base string) error {
	info, err := os.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is in the way: it is no directory", base)
	}
	if err := checkTrusted(base); err != nil {
		return err
	}
	return os.RemoveAll(base)
}

func (j *jail) makeCgroups(c vmm.Config) error {
	in, err := j.host.hierarchies()
	if err != nil {
		return fmt.Errorf("find cgroups: %w", err)
	}
	if missing := unlimited(in); len(missing) > 0 {
		j.log.Warn("no cgroup limits: this host lacks the controllers", "controllers", missing)
	}
	j.cgroups = cgroups{lock: j.host.cgroupLock(), id: c.ID, in: in}
	j.onEnd("remove the cgroups", func() error {
		j.oom = j.cgroups.outOfMemory()
		return j.cgroups.remove()
	})
	if err := j.cgroups.create(c); err != nil {
		return fmt.Errorf("make cgroups: %w", err)
	}
	return nil
}

// addLog makes the FIFO of Firecracker's log, and returns its path outside.
func (j *jail) addLog() (string, error) {
	path := filepath.Join(j.root, jailLog)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return "", &fs.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	return path, os.Lchown(path, j.id(), j.id())
}

// command runs Firecracker by way of the guard and the jailer.
func (j *jail) command(c vmm.Config, args []string) guardSpec {
	id := strconv.Itoa(j.id())
	return guardSpec{
		Cgroups: j.cgroups.procs(),
		Dir:     j.base,
		Binds:   j.binds,
		Taps:    taps(c, j.id()),
		Command: append([]string{j.jailer,
			"--id", c.ID, "--exec-file", j.binary, "--uid", id, "--gid", id, "--chroot-base-dir", j.base,
			"--resource-limit", "fsize=" + strconv.FormatInt(maxFile(c), 10), "--"}, args...),
	}
}

// maxFile is the largest file that the VMM may write: its largest disk, or as
// much as the guest's memory, which some configurations keep in a file that
// has no name.
func maxFile(c vmm.Config) int64 {
	most := int64(c.MemoryMiB) << 20
	for _, d := range c.Disks {
		info, err := os.Stat(d.Path)
		if err == nil && !d.ReadOnly {
			most = max(most, info.Size())
		}
	}
	return most
}

// Clean frees what a jailed VM left whose process was killed: processes,
// cgroups, the user id, the disk's owner and the jail itself.
func (d *Driver) Clean(id, dir string) error {
	if !d.host.root {
		return nil // nothing was jailed
	}
	in, err := d.host.hierarchies()
	if err != nil {
		return fmt.Errorf("find cgroups: %w", err)
	}
	g := cgroups{lock: d.host.cgroupLock(), id: id, in: in}
	return errors.Join(g.remove(), takeBack(filepath.Join(dir, jailDir)), sweepLeases(d.host.idLeases()))
}

// takeBack makes root the owner of the files that the jail has a second name
// of, and removes the jail.
func takeBack(base string) error {
	roots, err := filepath.Glob(filepath.Join(base, "*", "*", "root"))
	if err != nil {
		return err
	}
	for _, root := range roots {
		entries, err := os.ReadDir(root)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				if err := os.Lchown(filepath.Join(root, e.Name()), 0, 0); err != nil {
					return err
				}
			}
		}
	}
	return os.RemoveAll(base)
}
