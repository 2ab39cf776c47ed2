package manager

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
	"github.com/micropod/micropod/pkg/vmm"
)

// A container of network mode container:ID shares the network of another one, and
// so its VM: two kernels have two networks.

// modeShared begins the network mode of a container that shares another one's.
const modeShared = "container:"

// SharedNetwork is the container whose network one shares: its id, of a record.
func SharedNetwork(h HostConfig) (id string, shared bool) {
	if !shares(h) {
		return "", false
	}
	return strings.TrimPrefix(h.NetworkMode, modeShared), true
}

func shares(h HostConfig) bool { return strings.HasPrefix(h.NetworkMode, modeShared) }

// share finds the container whose network a new one is to share, if it is, and makes
// the options those of one that does: it has the other one's names, and what its VM
// is made of.
func (m *Manager) share(o CreateOptions) (CreateOptions, error) {
	if !slices.ContainsFunc(o.Networks, func(a NetworkAttachment) bool { return strings.HasPrefix(a.Network, modeShared) }) {
		return o, nil
	}
	if err := checkShare(o); err != nil {
		return o, err
	}
	ref := strings.TrimPrefix(o.Networks[0].Network, modeShared)
	vm, err := m.resolve(ref)
	if errors.Is(err, ErrNotFound) {
		err = noContainer(ref)
	}
	if err != nil {
		return o, err
	}
	owner, err := m.ownerOf(vm.ID)
	if err != nil {
		return o, err
	}
	o.HostConfig.NetworkMode, o.Networks = modeShared+vm.ID, nil
	o.Hostname, o.Domainname = owner.Hostname, owner.Domainname
	if err := checkSameVM(o.VMM, o.Kernel, owner, owner.VMM); err != nil {
		return o, err
	}
	if o.VMM == "" || o.VMM == vmmAuto {
		o.VMM = owner.VMM
	}
	o.Kernel = owner.Kernel
	return o, nil
}

func noContainer(ref string) error { return wordedf(ErrNotFound, "No such container: %s", ref) }

// checkShare refuses what cannot be asked for beside a shared network, in docker's
// words and order where it has some. Pure.
func checkShare(o CreateOptions) error {
	h, a := o.HostConfig, o.Networks[0]
	conflict := func(what string) error { return wordedf(ErrInvalid, "conflicting options: %s", what) }
	switch {
	case len(o.Networks) > 1:
		return conflict("cannot attach both user-defined and non-user-defined network-modes")
	case a.Network == modeShared:
		return wordedf(ErrInvalid, "invalid network mode: invalid container format container:<name|id>")
	case o.Hostname != "":
		return conflict("hostname and the network mode")
	case len(h.DNS) > 0:
		return conflict("dns and the network mode")
	case len(h.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case a.MAC != "":
		return conflict("mac-address and the network mode")
	case len(h.PortBindings) > 0 || h.PublishAll:
		return conflict("port publishing and the container type network mode")
	case len(o.ExposedPorts) > 0:
		return conflict("port exposing and the container type network mode")
	case len(h.DeviceReadBps)+len(h.DeviceWriteBps)+len(h.DeviceReadIOps)+len(h.DeviceWriteIOps) > 0:
		return conflict("limits of devices and the container type network mode: a VMM limits the disks of the VM's first container only")
	}
	if err := onlyUserDefined(a); err != nil {
		return err
	}
	for key := range h.Sysctls {
		if !ofNamespace(key) {
			return wordedf(ErrInvalid, "sysctl '%s' is not allowed: it would be the other container's too", key)
		}
	}
	return nil
}

// ofNamespace reports whether a kernel parameter is of a namespace, as docker has
// it: those of the network are shared by who shares that. It is asked about the file
// that the guest writes, whatever leads there. Pure.
func ofNamespace(key string) bool {
	file := key
	if !strings.Contains(key, "/") {
		file = strings.ReplaceAll(key, ".", "/")
	}
	file = path.Clean(file)
	ipc := []string{
		"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
	}
	return slices.Contains(ipc, file) || strings.HasPrefix(file, "fs/mqueue/") || strings.HasPrefix(file, "net/")
}

// checkSameVM refuses a VMM or a kernel that is not that of the VM, whose VMM is
// running. Pure.
func checkSameVM(asked, kernel string, owner *state.Config, running string) error {
	switch {
	case asked != "" && asked != vmmAuto && running != vmmAuto && asked != running:
		return wordedf(ErrInvalid, "conflicting options: --vmm %s and the container type network mode: the microVM of container %s is of %s", asked, owner.Name, running)
	case kernel != "" && kernel != owner.Kernel:
		return wordedf(ErrInvalid, "conflicting options: --kernel and the container type network mode: the microVM of container %s has its own", owner.Name)
	}
	return nil
}

// maxShares bounds the way from a container to the one whose VM it is in. Records
// cannot make a circle: a container is older than those who share its network.
const maxShares = 64

// ownerOf is the container in whose VM one runs, itself or another one, by the
// records.
func (m *Manager) ownerOf(id string) (*state.Config, error) {
	for range maxShares {
		c, err := m.state.ReadConfig(id)
		if errors.Is(err, fs.ErrNotExist) {
			err = noContainer(id)
		}
		if err != nil {
			return nil, err
		}
		next, shared := SharedNetwork(c.HostConfig)
		if !shared {
			return c, nil
		}
		id = next
	}
	return nil, fmt.Errorf("container %s shares a network with itself", id)
}

// runningOwner is ownerOf for a container that is to be started: every one whose
// network it shares must run.
func (m *Manager) runningOwner(c *state.Config) (*state.Config, *state.Status, error) {
	at := c
	for range maxShares {
		id, shared := SharedNetwork(at.HostConfig)
		if !shared {
			break
		}
		vm, err := m.resolve(id)
		if errors.Is(err, ErrNotFound) {
			err = noContainer(id)
		}
		if err != nil {
			return nil, nil, err
		}
		st, running, err := m.status(vm)
		switch {
		case err != nil:
			return nil, nil, err
		case !running || st == nil || st.Phase == state.PhaseExited || st.Phase == state.PhaseStarting:
			return nil, nil, wordedf(ErrConflict, "cannot join network of a non running container: %s", id)
		case st.Phase == state.PhaseRestarting:
			return nil, nil, wordedf(ErrConflict, "Container %s is restarting, wait until the container is running", id)
		}
		if at, err = m.state.ReadConfig(id); err != nil {
			return nil, nil, err
		}
		at.Name = vm.Name // the present one
		if !shares(at.HostConfig) {
			return at, st, nil
		}
	}
	return nil, nil, wordedf(ErrInvalid, "cannot join own network")
}

// sharePlan is the plan of a container that runs in another one's VM.
func (m *Manager) sharePlan(ctx context.Context, c *state.Config) (supervisor.Plan, error) {
	owner, st, err := m.runningOwner(c)
	if err != nil {
		return supervisor.Plan{}, err
	}
	if err := checkFits(c, owner, st); err != nil {
		return supervisor.Plan{}, err
	}
	k, err := m.guestKernel(owner, st)
	if err != nil {
		return supervisor.Plan{}, err
	}
	var ts []state.Timing
	begun := time.Now()
	img, err := m.disks.EnsureImage(ctx, c.DiffIDs, diskFormat(k))
	if err != nil {
		return supervisor.Plan{}, fmt.Errorf("prepare disks of %s: %w", c.Image, err)
	}
	m.timed(&ts, "disks", begun)
	paths := m.state.Paths(c.ID)
	disks, root := layout(img, paths.Disk())
	p := supervisor.Plan{
		ID: c.ID, Dir: paths.Dir, Driver: st.Driver,
		VMOf:   &supervisor.VMOwner{ID: owner.ID, Name: owner.Name, Dir: m.state.Paths(owner.ID).Dir},
		VM:     vmm.Config{ID: c.ID, CPUs: owner.CPUs, MemoryMiB: owner.MemoryMiB, Disks: disks},
		Setup:  api.SetupRequest{Root: api.Root{Format: root.Format}},
		Limits: supervisor.DefaultLimits(), Timings: ts, Debug: m.o.Debug,
	}
	if p.Start, err = startRequest(c, k.Release, nil, network.Resolver{}); err != nil {
		return p, err
	}
	p.Start.OwnRoot, p.Start.EtcOf = true, owner.ID
	m.planLife(&p, c)
	return p, nil
}

// checkFits refuses a container that has no room in a VM. Pure.
func checkFits(c, owner *state.Config, st *state.Status) error {
	if err := checkSameVM(c.VMM, c.Kernel, owner, st.Driver.Name); err != nil {
		return err
	}
	last, _ := lastCPU(c.HostConfig.CPUSetCPUs) // checked when it was created
	switch {
	case c.CPUs > owner.CPUs:
		return wordedf(ErrInvalid, "range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available in the microVM of container %s", owner.CPUs, owner.CPUs, owner.Name)
	case last >= owner.CPUs:
		return wordedf(ErrInvalid, "requested CPUs are not available - requested %s, available: 0-%d", c.HostConfig.CPUSetCPUs, owner.CPUs-1)
	}
	return nil
}

// guestKernel is the kernel that a VM was started with.
func (m *Manager) guestKernel(owner *state.Config, st *state.Status) (*kernel.Kernel, error) {
	k, err := m.kernel(owner.Kernel)
	if err != nil {
		return nil, err
	}
	if k.Release != st.Kernel {
		return nil, fmt.Errorf("the microVM of container %s has an older kernel than %s: restart that container first", owner.Name, k.Release)
	}
	if k.Support(kernel.NBD) == kernel.Missing {
		return nil, fmt.Errorf("kernel %s has no nbd, so that no disk can be brought into a VM that runs: run scripts/download-kernel.sh --force, and restart container %s", k.Release, owner.Name)
	}
	return k, nil
}

// containerLimits are a container's own in its VM: one that has no VM of its own has
// its size as a limit. Pure.
func containerLimits(c *state.Config) *api.Resources {
	r := limits(c.HostConfig)
	if !shares(c.HostConfig) || c.MemoryMiB == 0 {
		return r
	}
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	memory := int64(c.MemoryMiB) << 20
	r.Memory.Limit = &memory
	return r
}

// memoryOf is what a container may use, in MiB: its own limit, or its VM's memory.
func (m *Manager) memoryOf(c *state.Config) int {
	if c.MemoryMiB > 0 {
		return c.MemoryMiB
	}
	owner, err := m.ownerOf(c.ID)
	if err != nil {
		return 0 // it is gone, or cannot be read
	}
	return owner.MemoryMiB
}

// vmOf is the container in whose VM one that shares a network runs; "" for a VM of
// its own, or one that is no more.
func (m *Manager) vmOf(c *state.Config) string {
	if !shares(c.HostConfig) {
		return ""
	}
	owner, err := m.ownerOf(c.ID)
	if err != nil {
		return ""
	}
	return owner.ID
}

// refuseSharing is docker's answer to one more network for a container that shares
// another one's.
func (m *Manager) refuseSharing(vm state.VM) error {
	c, err := m.state.ReadConfig(vm.ID)
	if err == nil && shares(c.HostConfig) {
		err = wordedf(ErrInvalid, "container sharing network namespace with another container or host cannot be connected to any other network")
	}
	return err
}
