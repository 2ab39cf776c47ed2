package manager

import (
	"context"
	"errors"
	"time"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/state"
)

// Usage is what a container uses at one moment, in bytes.
type Usage struct {
	ID, Name string
	Running  bool // or paused, or starting
	// Guest is nil if the guest does not answer, or the container does not run.
	Guest       *GuestUsage
	MemoryLimit int64 // memory of the VM, or less in another container's
	VMMemory    int64 // resident memory of the VMM's process; 0 without one
	Disk        int64 // what the writable disk takes on the host
}

// GuestUsage is what the guest's kernel counts. The numbers are within bounds,
// and otherwise whatever the guest says.
type GuestUsage struct {
	Uptime, CPU           time.Duration
	Memory, Read, Written int64 // bytes; disks since the start
	Received, Sent        int64 // bytes of the network since the start
	PIDs                  int
}

// CPUPercent is the use of processors since an earlier look, 100 for one that
// was busy all the time.
func (g GuestUsage) CPUPercent(before GuestUsage) float64 {
	if g.Uptime <= before.Uptime || g.CPU < before.CPU {
		return 0 // another boot
	}
	return float64(g.CPU-before.CPU) / float64(g.Uptime-before.Uptime) * 100
}

// Meter reads what one container uses, again and again. Not safe for concurrent
// use. Close frees it.
type Meter struct {
	m      *Manager
	id     string
	client *agent.Client // nil: to be connected
}

// Meter makes a meter for a container, running or not.
func (m *Manager) Meter(ref string) (*Meter, error) {
	vm, err := m.resolve(ref)
	if err != nil {
		return nil, err
	}
	return &Meter{m: m, id: vm.ID}, nil
}

// ID is that of the container.
func (t *Meter) ID() string { return t.id }

// Close ends the connection to the guest.
func (t *Meter) Close() {
	if t.client != nil {
		t.client.Close()
		t.client = nil
	}
}

// Read takes a look. A guest that does not answer before ctx ends is no error;
// the error wraps ErrNotFound when the container is gone.
func (t *Meter) Read(ctx context.Context) (Usage, error) {
	vm, err := t.m.resolve(t.id)
	if err != nil {
		return Usage{}, err
	}
	disk, _ := blocksBelow(t.m.state.Paths(vm.ID).Disk()) // 0 for one that cannot be measured
	u := Usage{ID: vm.ID, Name: vm.Name, Disk: disk}
	if c, err := t.m.state.ReadConfig(vm.ID); err == nil {
		u.MemoryLimit = int64(t.m.memoryOf(c)) << 20
	}
	st, running, err := t.m.status(vm)
	if err != nil || !running || st == nil || st.Phase == state.PhaseExited {
		t.Close()
		return u, nil
	}
	u.Running, u.VMMemory = true, st.VMM.Resident()
	if st.Phase == state.PhaseRunning {
		u.Guest = t.ask(ctx, vm)
	}
	return u, nil
}

// ask returns the guest's numbers, nil if it does not tell them.
func (t *Meter) ask(ctx context.Context, vm state.VM) *GuestUsage {
	if err := t.connect(ctx, vm); err != nil {
		t.m.log.Debug("no statistics", "container", vm.Name, "err", err)
		return nil
	}
	s, err := t.client.Stats(ctx, vm.ID)
	if err != nil {
		t.m.log.Debug("no statistics", "container", vm.Name, "err", err)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Close() // the next look makes another connection
		}
		return nil
	}
	g := GuestUsage(s)
	return &g
}

func (t *Meter) connect(ctx context.Context, vm state.VM) error {
	if t.client != nil {
		return nil
	}
	g, err := t.m.guest(vm)
	if err != nil {
		return err
	}
	defer g.close()
	t.client, err = agent.Dial(ctx, g.vsock, g.token)
	return err
}
