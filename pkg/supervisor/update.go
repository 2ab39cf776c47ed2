package supervisor

import (
	"errors"
	"fmt"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
)

// Update is what OpUpdate changes.
type Update struct {
	// Restart is the restart policy from now on.
	Restart state.RestartPolicy `json:"restart,omitzero"`
	// Resources are the container's limits, nil to leave them as they are. They
	// count for the VMs of the restart policy too.
	Resources *api.Resources `json:"resources,omitempty"`
	// CPUs and MemoryMiB are what the container shall have: its VM must have as
	// much. 0 asks for nothing.
	CPUs      int `json:"cpus,omitempty"`
	MemoryMiB int `json:"memoryMiB,omitempty"`
}

// update changes what can be changed while the container runs, or rests between
// two starts.
func (s *supervisor) update(u *Update) error {
	if u == nil {
		return errors.New("an update of nothing")
	}
	if err := s.fits(u); err != nil {
		return err
	}
	if u.Resources != nil {
		if err := s.limit(u.Resources); err != nil {
			return err
		}
	}
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	s.plan.Restart = u.Restart
	return nil
}

// fits holds an update to the size of the VM, which only a start changes.
func (s *supervisor) fits(u *Update) error {
	has, more := s.plan.VM, "stop the container to give it more"
	if s.plan.VMOf != nil {
		more = "it is that of container " + s.plan.VMOf.Name
	}
	switch {
	case u.MemoryMiB > has.MemoryMiB:
		return fmt.Errorf("its VM has %d MiB of memory: %s", has.MemoryMiB, more)
	case u.CPUs > has.CPUs:
		return fmt.Errorf("its VM has %d CPUs: %s", has.CPUs, more)
	}
	return nil
}

// limit changes the container's limits, and those of the VMs to come.
func (s *supervisor) limit(r *api.Resources) error {
	resting := s.resting()
	switch {
	case !resting && !closed(s.running):
		return errors.New("the container is still starting")
	case !resting:
		ctx, cancel := s.callCtx()
		defer cancel()
		if err := s.agent.Update(ctx, api.UpdateRequest{ID: s.plan.Start.ID, Resources: r}); err != nil {
			return err
		}
	}
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	if s.plan.Start.Spec == nil || s.plan.Start.Spec.Linux == nil {
		return nil
	}
	// A copy: the start may be reading its own.
	spec, linux := *s.plan.Start.Spec, *s.plan.Start.Spec.Linux
	linux.Resources = r
	spec.Linux = &linux
	s.plan.Start.Spec = &spec
	return nil
}
