package firecracker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// cgroupParent holds one cgroup for each jailed VM of the host.
const cgroupParent = "micropod"

// What a VM's cgroup may use beyond the guest itself.
const (
	// overheadMiB is for Firecracker (5 MiB by its specification), the guard
	// (about 10) and the page cache of the disks, which is given back under
	// pressure.
	overheadMiB = 64
	// tablesPart is the part of the guest's memory for page tables: 8 bytes
	// for each 4 KiB, once of the host and once of the CPU, and as much again.
	tablesPart = 128
	// extraCPUs are for the threads that serve devices and the API.
	extraCPUs = 1
	// extraPids are Firecracker's other threads and those of the guard.
	extraPids = 32

	cpuPeriod = 100_000 // µs
)

// controllers are what a VM is limited in.
func controllers() []string { return []string{"memory", "cpu", "pids"} }

// setting is a file of a cgroup and what to write.
type setting struct {
	file, value string
	// optional files depend on the kernel's configuration.
	optional bool
}

// limits are the settings of one controller for a VM.
func limits(c vmm.Config, controller string, v2 bool) []setting {
	memory := strconv.FormatInt(int64(c.MemoryMiB+overheadMiB+c.MemoryMiB/tablesPart)<<20, 10)
	quota := strconv.Itoa((c.CPUs + extraCPUs) * cpuPeriod)
	period := strconv.Itoa(cpuPeriod)
	switch {
	case controller == "memory" && v2:
		return []setting{{"memory.max", memory, false}, {"memory.swap.max", "0", true}}
	case controller == "memory":
		// Memory and swap together: nothing is left for swap.
		return []setting{{"memory.limit_in_bytes", memory, false}, {"memory.memsw.limit_in_bytes", memory, true}}
	case controller == "cpu" && v2:
		return []setting{{"cpu.max", quota + " " + period, false}}
	case controller == "cpu":
		return []setting{{"cpu.cfs_period_us", period, false}, {"cpu.cfs_quota_us", quota, false}}
	}
	return []setting{{"pids.max", strconv.Itoa(c.CPUs + extraPids), false}}
}

// hierarchy is a mounted tree of cgroups with the controllers that we use it for.
type hierarchy struct {
	mount       string
	v2          bool
	controllers []string
}

// parent is the directory of all VMs of the host.
func (h hierarchy) parent() string { return filepath.Join(h.mount, cgroupParent) }

func (h hierarchy) leaf(id string) string { return filepath.Join(h.parent(), id) }

// unlimited lists the controllers that none of the hierarchies has.
func unlimited(in []hierarchy) []string {
	return slices.DeleteFunc(controllers(), func(c string) bool {
		return slices.ContainsFunc(in, func(h hierarchy) bool { return slices.Contains(h.controllers, c) })
	})
}

// hierarchies finds where each controller is: in a tree of version 1, or in the
// one of version 2. Hosts may have both. A controller that is nowhere is left out.
func hierarchies(mountinfo io.Reader) ([]hierarchy, error) {
	var found []hierarchy
	missing := controllers()
	take := func(mount string, v2 bool, has []string) {
		h := hierarchy{mount: mount, v2: v2}
		missing = slices.DeleteFunc(missing, func(c string) bool {
			if !slices.Contains(has, c) {
				return false
			}
			h.controllers = append(h.controllers, c)
			return true
		})
		if len(h.controllers) > 0 {
			found = append(found, h)
		}
	}
	// Version 2 offers only what no tree of version 1 has taken.
	for lines := bufio.NewScanner(mountinfo); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) < 3 {
			continue
		}
		mount := unescapeMount(fields[4])
		switch kind[0] {
		case "cgroup":
			take(mount, false, strings.Split(kind[2], ","))
		case "cgroup2":
			text, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
			if err != nil {
				return nil, err
			}
			take(mount, true, strings.Fields(string(text)))
		}
	}
	return found, nil
}

// unescapeMount undoes what proc(5) does to blanks in paths.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// check says why no cgroup can be made here, nil if one can. It changes nothing.
func (h hierarchy) check() error {
	if err := unix.Access(h.mount, unix.W_OK); err != nil {
		return &fs.PathError{Op: "make cgroups in", Path: h.mount, Err: err}
	}
	if !h.v2 {
		return nil
	}
	on, err := os.ReadFile(filepath.Join(h.mount, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	for _, c := range h.controllers {
		if slices.Contains(strings.Fields(string(on)), c) {
			continue
		}
		// cgroups(7), "no internal processes"; the true root, which has no type,
		// is free of that rule. A container's root is not the true one.
		procs, err := os.ReadFile(filepath.Join(h.mount, "cgroup.procs"))
		_, typeErr := os.Stat(filepath.Join(h.mount, "cgroup.type"))
		if err == nil && len(procs) > 0 && typeErr == nil {
			return fmt.Errorf("the %s controller cannot be handed down: there are processes in %s itself", c, h.mount)
		}
	}
	return nil
}

// cgroups are those of one VM, one in each hierarchy.
type cgroups struct {
	lock string // file that orders making and removing the parent
	id   string
	in   []hierarchy
}

// create makes the cgroups and sets their limits.
func (g cgroups) create(c vmm.Config) error {
	unlock, err := lockPath(g.lock)
	if err != nil {
		return err
	}
	defer unlock()
	for _, h := range g.in {
		if err := h.prepare(); err != nil {
			return err
		}
		if err := os.Mkdir(h.leaf(g.id), 0o755); err != nil {
			return err
		}
		for _, controller := range h.controllers {
			for _, s := range limits(c, controller, h.v2) {
				err := writeControl(filepath.Join(h.leaf(g.id), s.file), s.value)
				if err != nil && !(s.optional && errors.Is(err, fs.ErrNotExist)) {
					return err
				}
			}
		}
	}
	return nil
}

// prepare makes the parent, and hands the controllers down to it.
func (h hierarchy) prepare() error {
	if err := os.Mkdir(h.parent(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !h.v2 {
		return nil
	}
	for _, dir := range []string{h.mount, h.parent()} {
		if err := h.enable(filepath.Join(dir, "cgroup.subtree_control")); err != nil {
			return err
		}
	}
	return nil
}

func (h hierarchy) enable(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	on := strings.Fields(string(text))
	for _, c := range h.controllers {
		if slices.Contains(on, c) {
			continue
		}
		if err := writeControl(file, "+"+c); err != nil {
			return fmt.Errorf("hand the %s controller down: %w", c, err)
		}
	}
	return nil
}

// writeControl writes to a file that must be there: cgroup files are no files
// that one makes.
func writeControl(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// procs are the files by which a process enters the cgroups of version 1.
func (g cgroups) procs() []string {
	var all []string
	for _, h := range g.in {
		if !h.v2 {
			all = append(all, filepath.Join(h.leaf(g.id), "cgroup.procs"))
		}
	}
	return all
}

// birthplace opens the cgroup of version 2, nil if there is none. A process
// that is born there (CLONE_INTO_CGROUP) need not move, for which the kernel
// stops all forks and exits of the host.
func (g cgroups) birthplace() (*os.File, error) {
	for _, h := range g.in {
		if h.v2 {
			return os.Open(h.leaf(g.id))
		}
	}
	return nil, nil
}

// outOfMemory reports that the kernel killed a process of the VM for want of
// memory in its cgroup.
func (g cgroups) outOfMemory() bool {
	for _, h := range g.in {
		for _, name := range []string{"memory.events", "memory.oom_control"} {
			text, err := os.ReadFile(filepath.Join(h.leaf(g.id), name))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(text)) {
				key, n, _ := strings.Cut(strings.TrimSpace(line), " ")
				if key == "oom_kill" && n != "0" {
					return true
				}
			}
		}
	}
	return false
}

// remove ends what is left in the cgroups and removes them, and the parents
// that nobody needs any more. Idempotent.
func (g cgroups) remove() error {
	unlock, err := lockPath(g.lock)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, h := range g.in {
		errs = append(errs, h.empty(g.id))
		err := os.Remove(h.parent())
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// emptyTimeout bounds the wait for killed processes to be gone.
const emptyTimeout = 10 * time.Second

// empty kills and removes until the directory is gone. A process that was
// killed stays in its cgroup until its memory is freed.
func (h hierarchy) empty(id string) error {
	dir := h.leaf(id)
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || time.Since(begun) > emptyTimeout {
			return &fs.PathError{Op: "remove", Path: dir, Err: err}
		}
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
	}
}

// lockPath waits for a lock of the host.
func lockPath(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := lockFile(path, 0)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}
