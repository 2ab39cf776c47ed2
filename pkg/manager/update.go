package manager

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// UpdateOptions are the changes of Update. The zero value of a field changes
// nothing.
type UpdateOptions struct {
	CPUs                           float64
	MemoryBytes, MemoryReservation int64
	CPUShares, CPUPeriod, CPUQuota int64
	CPUSetCPUs                     string
	PidsLimit                      *int64 // negative and 0: none
	RestartPolicy                  *RestartPolicy
}

// Update changes a container: of one that runs the limits within its VM and the
// restart policy, at once; of one that does not, what its next VM will have.
func (m *Manager) Update(ctx context.Context, ref string, o UpdateOptions) error {
	vm, err := m.resolve(ref)
	if err != nil {
		return err
	}
	// Two updates at one time would lose one of them.
	config, err := m.state.LockConfig(vm.ID)
	if err != nil {
		return err
	}
	defer config.Unlock()
	c, err := m.state.ReadConfig(vm.ID)
	if err != nil {
		return err
	}
	if err := o.apply(c); err != nil {
		return fmt.Errorf("update container %s: %w", vm.Name, err)
	}
	done, err := m.updateServed(vm, c)
	if !done && err == nil {
		err = m.updateAny(ctx, vm, c, o)
	}
	if err != nil {
		return err
	}
	m.tellContainer(events.ActionUpdate, vm)
	return nil
}

// updateServed updates a container whose files are served. It is done if they
// still are then: a start reads what it had with the lock that the server holds.
func (m *Manager) updateServed(vm state.VM, c *state.Config) (done bool, err error) {
	if !m.served(vm.ID) {
		return false, nil
	}
	err = m.state.WriteConfig(c)
	return err == nil && m.served(vm.ID), err
}

// updateAny updates a container that runs or does not.
func (m *Manager) updateAny(ctx context.Context, vm state.VM, c *state.Config, o UpdateOptions) error {
	alive, err := m.lock(ctx, vm)
	switch {
	case err == nil:
		defer alive.Unlock() // nobody starts it with what it had
	case errors.Is(err, state.ErrLocked):
		err = m.updateRunning(ctx, vm, c, o)
	}
	if err != nil {
		return err
	}
	return m.state.WriteConfig(c)
}

func (m *Manager) updateRunning(ctx context.Context, vm state.VM, c *state.Config, o UpdateOptions) error {
	u := supervisor.Update{Restart: c.HostConfig.RestartPolicy, Resources: o.live(c)}
	if o.CPUs > 0 || o.CPUQuota > 0 || o.CPUPeriod > 0 {
		u.CPUs = c.CPUs
	}
	if o.MemoryBytes > 0 {
		u.MemoryMiB = c.MemoryMiB
	}
	answer, err := m.ask(ctx, vm, supervisor.Command{Op: supervisor.OpUpdate, Update: &u})
	if err == nil && answer.Error != "" {
		err = fmt.Errorf("%w: update container %s: %s", ErrConflict, vm.Name, answer.Error)
	}
	return err
}

// live are the limits that a container has in the VM that it runs in, which may
// be larger than the next; nil if none of them change. Pure.
func (o UpdateOptions) live(c *state.Config) *api.Resources {
	o.RestartPolicy = nil
	if o == (UpdateOptions{}) {
		return nil
	}
	r := containerLimits(c)
	memory := int64(c.MemoryMiB) << 20
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	r.Memory.Limit = &memory
	return r
}

// apply makes the changes in a container's description, and checks the result as
// for a new one.
func (o UpdateOptions) apply(c *state.Config) error {
	h := &c.HostConfig
	if err := o.conflict(*h); err != nil {
		return err
	}
	if o.CPUs != 0 {
		h.NanoCPUs = nanoCPUs(o.CPUs)
	}
	set(&h.CPUShares, o.CPUShares)
	set(&h.CPUPeriod, o.CPUPeriod)
	set(&h.CPUQuota, o.CPUQuota)
	set(&h.MemoryReservation, o.MemoryReservation)
	set(&h.CPUSetCPUs, o.CPUSetCPUs)
	if o.PidsLimit != nil {
		h.PidsLimit = max(*o.PidsLimit, -1)
		if h.PidsLimit == 0 {
			h.PidsLimit = -1 // a limit that was there has to be lifted
		}
	}
	if p := o.RestartPolicy; p != nil {
		if err := checkRestart(*p, false); err != nil {
			return err
		}
		if c.AutoRemove && !p.None() {
			return fmt.Errorf("%w: restart policy cannot be updated because AutoRemove is enabled for the container", ErrConflict)
		}
		h.RestartPolicy = *p
	}
	return o.resize(c)
}

// resize makes the changes to the size of the VM.
func (o UpdateOptions) resize(c *state.Config) error {
	size := CreateOptions{HostConfig: c.HostConfig, CPUs: o.CPUs, MemoryBytes: o.MemoryBytes, StorageBytes: c.StorageBytes}
	cpus, memory := c.CPUs, c.MemoryMiB
	if err := resources(c, size); err != nil {
		return err
	}
	if o.MemoryBytes == 0 {
		c.MemoryMiB = memory
	}
	if o.CPUs == 0 {
		c.CPUs = max(cpus, int(math.Ceil(quotaCPUs(c.HostConfig))))
	}
	return checkShares(c)
}

// conflict refuses two ways to say the same.
func (o UpdateOptions) conflict(h HostConfig) error {
	change := HostConfig{NanoCPUs: nanoCPUs(o.CPUs), CPUPeriod: o.CPUPeriod, CPUQuota: o.CPUQuota}
	if err := checkNanoCPUs(change); err != nil {
		return err
	}
	set(&h.NanoCPUs, change.NanoCPUs)
	set(&h.CPUPeriod, change.CPUPeriod)
	set(&h.CPUQuota, change.CPUQuota)
	if checkNanoCPUs(h) != nil {
		return fmt.Errorf("%w: conflicting options: --cpus, and --cpu-period or --cpu-quota, one of which has already been set", ErrInvalid)
	}
	return nil
}

// set changes a value, unless the new one is its type's zero.
func set[T comparable](to *T, value T) {
	var zero T
	if value != zero {
		*to = value
	}
}
