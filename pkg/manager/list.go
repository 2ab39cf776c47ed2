package manager

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/docker/go-units"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/logdriver"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
	"github.com/micropod/micropod/pkg/vmm"
)

// ListOptions select containers.
type ListOptions struct {
	// All includes those that do not run.
	All bool
	// Filters as of docker ps: id, name, label, status, ancestor, exited,
	// network, before, since. Values of a key are alternatives (all of them must hold
	// for label), keys must all hold.
	Filters map[string][]string
	// Last keeps the newest ones only, running or not; 0 keeps all.
	Last int
}

// List returns containers, the newest first. One that cannot be read is listed
// as broken and never hides the others.
func (m *Manager) List(ctx context.Context, o ListOptions) ([]Container, error) {
	if err := checkFilters(o.Filters); err != nil {
		return nil, err
	}
	vms, err := m.state.List()
	if err != nil {
		return nil, err
	}
	all := make([]Container, 0, len(vms))
	for i := len(vms) - 1; i >= 0; i-- {
		c := m.container(vms[i])
		if c.Problem == "" && c.State == StateExited && m.vanished(vms[i].ID) {
			continue // --rm took it while we looked
		}
		all = append(all, c)
	}
	if err := checkNeighbours(all, o.Filters); err != nil {
		return nil, err
	}
	return selectContainers(all, o)
}

// Inspect returns one container.
func (m *Manager) Inspect(ctx context.Context, ref string) (*Container, error) {
	vm, err := m.resolve(ref)
	if err != nil {
		return nil, err
	}
	c := m.container(vm)
	if c.Problem != "" {
		return nil, fmt.Errorf("container %s is broken: %s (remove it with micropod rm)", vm.Name, c.Problem)
	}
	return &c, nil
}

func (m *Manager) vanished(id string) bool {
	_, err := m.state.Resolve(id)
	return errors.Is(err, state.ErrNotFound)
}

// container derives what a container is from its files and its lock.
func (m *Manager) container(vm state.VM) Container {
	paths := m.state.Paths(vm.ID)
	c := Container{
		ID: vm.ID, Name: vm.Name, Image: vm.Image, Created: vm.Created,
		Dir: paths.Dir, ConsolePath: paths.Console(),
	}
	config, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return broken(c, err)
	}
	describe(&c, config, paths)
	c.VMOf = m.vmOf(config)
	status, running, err := m.status(vm)
	if err != nil {
		return broken(c, err)
	}
	c.State = derive(status, running)
	if status != nil {
		addStatus(&c, status)
	}
	m.addHealth(&c)
	c.Status = humanStatus(&c, time.Now())
	return c
}

func broken(c Container, err error) Container {
	c.State, c.Status, c.Problem = StateBroken, "Broken", err.Error()
	return c
}

// status reads a container's status and asks its lock; a supervisor that was
// lost is cleaned up after first.
func (m *Manager) status(vm state.VM) (*state.Status, bool, error) {
	id := vm.ID
	// The lock first: a status that is read later can only be newer.
	running, err := m.state.Running(id)
	if err != nil {
		return nil, false, err
	}
	st, err := m.state.ReadStatus(id)
	if err != nil || running || !lost(st) && !m.lostService(id) {
		return st, running, err
	}
	lock, err := m.state.Lock(id)
	if errors.Is(err, state.ErrLocked) {
		return st, true, nil // it was started again just now
	}
	if err != nil {
		return nil, false, err
	}
	defer lock.Unlock()
	if err := m.reap(vm); err != nil {
		return nil, false, err
	}
	st, err = m.state.ReadStatus(id)
	return st, false, err
}

// lost reports whether a status whose lock is free was never finished.
func lost(st *state.Status) bool {
	return st != nil && st.Phase != state.PhaseExited
}

// How a container has ended whose supervisor did not say: its VM was killed.
const (
	exitLost       = 128 + int(syscall.SIGKILL)
	supervisorLost = "the supervisor ended unexpectedly"
)

// reap cleans up after a supervisor that ended without doing so. The caller
// holds the container's lock.
func (m *Manager) reap(vm state.VM) error {
	id := vm.ID
	if err := m.reapService(id); err != nil {
		return err
	}
	st, err := m.state.ReadStatus(id)
	if err != nil || !lost(st) {
		return err
	}
	if err := m.reapVM(id, st); err != nil {
		return err
	}
	failpoint.Here(failpoint.ReapFreed)
	m.log.Info("cleaned up after a supervisor that was lost", "container", id)
	ran, left := st.Phase == state.PhaseRunning, st.Networks
	endLost(st, time.Now())
	if ran {
		m.tell(events.Die(m.subject(vm), st.ExitCode, st.FinishedAt.Sub(st.StartedAt)))
	}
	m.tellLeft(vm, left)
	c, err := m.state.ReadConfig(id)
	if err == nil && c.AutoRemove {
		return m.remove(vm)
	}
	return state.WriteStatus(m.state.Paths(id), *st)
}

// endLost makes a status that of a container whose supervisor was lost. One that
// waited for its next start had ended before, and how stays true.
func endLost(st *state.Status, now time.Time) {
	if st.Phase != state.PhaseRestarting {
		st.ExitCode, st.OOMKilled, st.FinishedAt = exitLost, false, now
	}
	st.Phase, st.Paused, st.Error = state.PhaseExited, false, supervisorLost
	st.VMM, st.Supervisor, st.Networks = state.Process{}, state.Process{}, nil
}

// reapVM ends the VM of a supervisor that was lost, and frees what it had.
func (m *Manager) reapVM(id string, st *state.Status) error {
	if err := st.VMM.Kill(); err != nil {
		return err
	}
	if err := m.clean(id, st.Driver.Name); err != nil {
		return err
	}
	m.leaveNetworks(id, st.Networks)
	// It may have been making a template.
	if err := m.templateStore().RemoveStrays(); err != nil {
		m.log.Error("remove what is left of a template", "container", id, "err", err)
	}
	return supervisor.RemoveLeftovers(m.state.Paths(id))
}

// clean has the VMM's driver free what a VM that nobody watches any more left.
// An empty name stands for one that is not known.
func (m *Manager) clean(id, driver string) error {
	for _, d := range m.o.Drivers {
		c, ok := d.(vmm.Cleaner)
		if !ok || driver != "" && driver != d.Name() {
			continue
		}
		if err := c.Clean(id, m.state.Paths(id).VMM()); err != nil {
			return fmt.Errorf("clean up after %s: %w", d.Name(), err)
		}
	}
	return nil
}

func describe(c *Container, s *state.Config, paths state.Paths) {
	c.Image, c.ImageID, c.Created, c.Command = s.Image, s.ImageID, s.Created, s.Args
	c.Labels, c.Annotations, c.Platform = s.Labels, s.Annotations, s.Platform
	c.TTY, c.Stdin, c.AutoRemove, c.ReadOnly = s.TTY, s.Stdin, s.AutoRemove, s.ReadOnly
	c.StdinStays = s.StdinStays
	c.StopSignal, c.StopTimeout = signalName(s.StopSignal), s.StopTimeout
	c.CPUs, c.MemoryMiB, c.StorageBytes = s.CPUs, s.MemoryMiB, s.StorageBytes
	c.Kernel, c.Hostname, c.Env, c.User, c.Workdir = s.Kernel, s.Hostname, s.Env, s.User, s.Workdir
	c.GroupAdd, c.Tmpfs, c.Init, c.ExposedPorts, c.HostConfig = s.GroupAdd, s.Tmpfs, s.Init, s.ExposedPorts, s.HostConfig
	c.Healthcheck, c.Shell, c.Attachments = s.Healthcheck, s.Shell, attachments(s)
	c.VMM, c.Domainname = VMMInfo{Name: s.VMM}, s.Domainname
	if s.HostConfig.LogConfig.Type == logdriver.JSONFile {
		c.LogPath = paths.JSONLog()
	}
	describeGiven(c, s)
}

// describeGiven is about words that inspect shows as they were given, if the
// record has them.
func describeGiven(c *Container, s *state.Config) {
	c.Entrypoint, c.Cmd = s.Entrypoint, s.Args[min(len(s.Entrypoint), len(s.Args)):]
	if s.Given == nil {
		return
	}
	c.Env = s.Given.Env
	if s.Given.StopSignal != "" {
		c.StopSignal = s.Given.StopSignal
	}
}

func addStatus(c *Container, s *state.Status) {
	c.ExitCode, c.OOMKilled, c.Error, c.RestartCount = s.ExitCode, s.OOMKilled, s.Error, s.RestartCount
	c.StartedAt, c.FinishedAt = s.StartedAt, s.FinishedAt
	c.PID, c.SupervisorPID, c.Disks = s.VMM.PID, s.Supervisor.PID, s.Disks
	c.VMM, c.FromTemplate, c.Networks = VMMInfo(s.Driver), s.FromTemplate, s.Networks
	for _, t := range s.Timings {
		c.Phases = append(c.Phases, PhaseTime(t))
	}
}

func derive(s *state.Status, running bool) State {
	switch {
	case s == nil:
		return StateCreated
	case s.Phase == state.PhaseExited:
		return StateExited
	case running && s.Phase == state.PhaseRunning && s.Paused:
		return StatePaused
	case running && s.Phase == state.PhaseRunning:
		return StateRunning
	case running && s.Phase == state.PhaseRestarting:
		return StateRestarting
	case running:
		return StateStarting
	}
	return StateExited
}

// humanStatus is docker's STATUS column.
func humanStatus(c *Container, now time.Time) string {
	switch c.State {
	case StateCreated:
		return "Created"
	case StateStarting:
		return "Starting"
	case StateRunning:
		return "Up " + units.HumanDuration(now.Sub(c.StartedAt)) + humanHealth(c.Health)
	case StatePaused:
		return "Up " + units.HumanDuration(now.Sub(c.StartedAt)) + " (Paused)"
	case StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", c.ExitCode, units.HumanDuration(now.Sub(c.FinishedAt)))
	}
	return fmt.Sprintf("Exited (%d) %s ago", c.ExitCode, units.HumanDuration(now.Sub(c.FinishedAt)))
}
