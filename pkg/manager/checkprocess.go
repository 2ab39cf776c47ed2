package manager

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micropod/micropod/pkg/ledger"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// supervisorVerb is the last word but one of a supervisor's command.
const supervisorVerb = "supervise"

// endGrace is for a process that was told to end, or whose container has just
// been removed. Each look gives it anew, see nextLooks.
const endGrace = 2 * time.Second

// ownProcess is a supervisor or a VMM of this root.
type ownProcess struct {
	state.Process
	container  string // id
	supervisor bool
	name       string // of the program
}

// checkProcesses looks for supervisors without a container and for VMMs without
// a supervisor.
func (m *Manager) checkProcesses() ([]ledger.Finding, error) {
	// The kernel names open files without links.
	vms, err := filepath.EvalSymlinks(m.state.Paths("").Dir)
	if err != nil {
		return nil, fmt.Errorf("find containers: %w", err)
	}
	all, err := m.processes(vms + "/")
	if err != nil {
		return nil, err
	}
	var found []ledger.Finding
	for _, p := range all {
		if !m.orphaned(p) || p.EndsWithin(endGrace) {
			continue
		}
		found = append(found, ledger.Finding{
			Kind: ledger.Process, Subject: fmt.Sprintf("%d (%s)", p.PID, p.name),
			Problem: fmt.Sprintf("container %s has no supervisor", p.container[:12]), Remedy: "kill it",
			Repair: func(context.Context) error { return m.endOrphan(p) },
		})
	}
	return found, nil
}

// orphaned reports that nobody holds the lock of the process's container. A
// supervisor holds it for as long as its container is there.
func (m *Manager) orphaned(p ownProcess) bool {
	held, err := m.state.Running(p.container)
	return err == nil && !held
}

// endOrphan kills a process, unless its container runs by now: the lock is held
// meanwhile, so that it cannot begin to.
func (m *Manager) endOrphan(p ownProcess) error {
	l, err := m.state.Lock(p.container)
	switch {
	case errors.Is(err, state.ErrLocked):
		return nil
	case err == nil:
		defer l.Unlock()
	case !errors.Is(err, state.ErrNotFound): // no directory: nobody can start it
		return err
	}
	return p.Kill()
}

// processes lists the supervisors and VMMs of the containers below vms.
func (m *Manager) processes(vms string) ([]ownProcess, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []ownProcess
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// First of all, so that what is read next is of this very process.
		id := state.IdentifyProcess(pid)
		p, ok := m.own(pid, vms)
		if p.Process = id; ok && p.Alive() {
			all = append(all, p)
		}
	}
	return all, nil
}

// own tells a process of ours by its name and by a file of a container of this
// root that it has open: either alone proves nothing.
func (m *Manager) own(pid int, vms string) (ownProcess, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || pid == os.Getpid() {
		return ownProcess{}, false
	}
	p := ownProcess{}
	args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
	p.name = filepath.Base(args[0])
	n := len(args)
	p.supervisor = n > 2 && args[n-2] == supervisorVerb && state.ValidID(args[n-1])
	isVMM := slices.ContainsFunc(m.o.Drivers, func(d vmm.Driver) bool { return strings.Contains(p.name, d.Name()) })
	if !p.supervisor && !isVMM {
		return p, false
	}
	p.container = containerOf(dir, vms)
	return p, p.container != "" && (!p.supervisor || p.container == args[n-1])
}

// containerOf finds the container whose files a process has open to write, "" if
// it has none.
func containerOf(dir, vms string) string {
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return "" // gone, or somebody else's
	}
	for _, fd := range fds {
		info, err := fd.Info()
		if err != nil || info.Mode().Type() != fs.ModeSymlink || info.Mode().Perm()&0o200 == 0 {
			continue
		}
		path, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
		rest, ok := strings.CutPrefix(path, vms)
		if err != nil || !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, "/")
		if id := strings.TrimPrefix(name, ".gone-"); state.ValidID(id) {
			return id
		}
	}
	return ""
}
