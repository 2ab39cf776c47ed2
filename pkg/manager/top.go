package manager

import (
	"context"
	"errors"
	"time"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/events"
)

// Process is one process of a container. Its ids are those of the guest's
// kernel, not of the container's pid namespace.
type Process struct {
	PID, PPID, UID int
	TTY            string // "?" without
	Started        time.Time
	CPU            time.Duration // user and system
	Command        string
}

// Processes lists the processes of a container that runs, by ascending pid.
func (m *Manager) Processes(ctx context.Context, ref string) ([]Process, error) {
	vm, err := m.running(ref)
	if err != nil {
		return nil, err
	}
	g, err := m.guest(vm)
	if err != nil {
		return nil, err
	}
	defer g.close()
	c, err := agent.Dial(ctx, g.vsock, g.token)
	if err != nil {
		return nil, m.guestLost(vm, err)
	}
	defer c.Close()
	found, err := c.Processes(ctx, vm.ID)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeConflict {
		return nil, notRunning(vm)
	}
	if err != nil {
		return nil, m.guestLost(vm, err)
	}
	var all []Process
	m.tellContainer(events.ActionTop, vm)
	for _, p := range found {
		all = append(all, Process(p))
	}
	return all, nil
}
