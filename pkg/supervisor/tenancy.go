package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// A container that shares another one's network runs in that one's VM: two kernels
// have two networks. It has a supervisor like any other, which starts no VMM. That
// one connects to the guest of the VM, serves it the container's disks, has it make a
// root file system of them, and goes on from there as if the VM were its own.

// VMOwner is the container in whose VM another one runs.
type VMOwner struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Dir  string `json:"dir"` // its directory, next to the other one's
}

// tenancy is a container's part of another one's VM: a vmm.Machine that goes
// without its VM. It ends when the VM ends, or by Kill.
type tenancy struct {
	owner  VMOwner
	client *agent.Client

	mu    sync.Mutex
	over  bool // no disk may come any more
	disks []servedDisk
}

var _ vmm.Machine = (*tenancy)(nil)

type servedDisk struct {
	*agent.Disk
	file *os.File
}

// PID is that of this process: to kill it ends the container, and nothing else that
// is in the VM.
func (t *tenancy) PID() int { return os.Getpid() }

// Done is closed when the guest cannot be reached any more.
func (t *tenancy) Done() <-chan struct{} { return t.client.Done() }

// Exit tells why the container has no VM any more.
func (t *tenancy) Exit() vmm.Exit {
	return vmm.Exit{Code: -1, Reason: fmt.Sprintf("the microVM that it shares with container %s has ended", t.owner.Name)}
}

// Kill hangs up: the guest kills what runs in the container, and lets go of its
// disks, which are gone already.
func (t *tenancy) Kill() error {
	err := t.client.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	for _, d := range t.disks {
		err = errors.Join(err, d.Close(), d.file.Close())
	}
	t.disks = nil
	return err
}

// add takes a disk over that is served.
func (t *tenancy) add(d servedDisk) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return errors.Join(errKilled, d.Close(), d.file.Close())
	}
	t.disks = append(t.disks, d)
	return nil
}

// moveIn are the steps to a root file system in another container's VM.
func (s *supervisor) moveIn() []step {
	return []step{{"join", s.joinVM}, {"serve", s.bringDisks}, {"setup", s.makeRoot}}
}

// errNoVM is docker's word for a network that nobody is in.
func (s *supervisor) errNoVM() error {
	return fmt.Errorf("cannot join network of a non running container: %s", s.plan.VMOf.ID)
}

// joinVM connects to the guest, and makes it reachable by the container's own
// directory, as a VM's is.
func (s *supervisor) joinVM() error {
	ctx, cancel := context.WithTimeout(s.booting, s.plan.Limits.Boot)
	defer cancel()
	if err := os.MkdirAll(s.paths.VMM(), 0o700); err != nil {
		return err
	}
	client, err := s.reachVM(ctx)
	if err != nil {
		return err
	}
	s.agent, s.machine = client, &tenancy{owner: *s.plan.VMOf, client: client}
	s.status.Kernel = client.Hello().Kernel
	return s.record()
}

// reachVM connects to the guest of the VM. One that cannot be reached may be ending:
// another one may come after it.
func (s *supervisor) reachVM(ctx context.Context) (*agent.Client, error) {
	client, err := s.dialVM(ctx)
	var refused *api.Error
	if err == nil || errors.As(err, &refused) {
		return client, err
	}
	wait, cancel := context.WithTimeout(ctx, s.plan.Limits.Kill)
	defer cancel()
	switch _, gone := s.awaitOwner(wait); {
	case wait.Err() != nil:
		return nil, err
	case gone != nil:
		return nil, gone
	}
	return s.dialVM(ctx)
}

// dialVM connects to the guest of the VM that runs, or will.
func (s *supervisor) dialVM(ctx context.Context) (*agent.Client, error) {
	token, err := s.awaitOwner(ctx)
	if err != nil {
		return nil, err
	}
	s.plan.Setup.Token = token
	if err := s.linkVM(); err != nil {
		return nil, err
	}
	client, err := agent.Dial(ctx, s.plan.VM.VsockPath, token)
	if err != nil {
		s.goneToken = token
		return nil, fmt.Errorf("reach the microVM of container %s: %w", s.plan.VMOf.Name, err)
	}
	return client, nil
}

// linkVM names the VM's socket, and its token, where those look who want to reach
// the container's guest.
func (s *supervisor) linkVM() error {
	if err := s.unlinkVM(); err != nil {
		return err
	}
	target := state.Paths{Dir: filepath.Join("..", filepath.Base(s.plan.VMOf.Dir))}.Vsock()
	if err := os.Symlink(target, s.paths.Vsock()); err != nil {
		return err
	}
	return state.WriteToken(s.paths, s.plan.Setup.Token)
}

// unlinkVM removes the name of the VM's socket: of another one's, never a socket.
func (s *supervisor) unlinkVM() error {
	err := os.Remove(s.paths.Vsock())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// awaitOwner waits until the VM's container runs, and returns the VM's token. One
// that is on its way up is waited for, by its restart policy too: it took this
// container along when it ended.
func (s *supervisor) awaitOwner(ctx context.Context) (token string, err error) {
	w, err := s.store.Watch(s.plan.VMOf.ID)
	if err != nil {
		return "", err
	}
	defer w.Close()
	for {
		token, up, err := s.ownerToken()
		if up || err != nil {
			return token, err
		}
		if err := w.Next(ctx); err != nil {
			return "", fmt.Errorf("wait for container %s: %w", s.plan.VMOf.Name, err)
		}
	}
}

// ownerToken looks once. The VM in which this container has ended is none that runs,
// whatever its record still says.
func (s *supervisor) ownerToken() (token string, up bool, err error) {
	held, err := s.store.Running(s.plan.VMOf.ID)
	if err != nil {
		return "", false, err
	}
	st, err := s.store.ReadStatus(s.plan.VMOf.ID)
	if err != nil {
		return "", false, err
	}
	if !held || st == nil || st.Phase == state.PhaseExited {
		return "", false, s.errNoVM()
	}
	if st.Phase != state.PhaseRunning {
		return "", false, nil
	}
	token, err = state.ReadToken(state.Paths{Dir: s.plan.VMOf.Dir})
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil // it is ending
	}
	return token, err == nil && token != s.goneToken, err
}

// bringDisks serves the guest the container's disks.
func (s *supervisor) bringDisks() error {
	ctx, cancel := context.WithTimeout(s.booting, s.plan.Limits.Call)
	defer cancel()
	root := &s.plan.Setup.Root
	root.Devices, root.Writable = nil, ""
	for _, d := range s.plan.VM.Disks {
		device, err := s.bringDisk(ctx, d)
		switch {
		case err != nil:
			return s.guestError(err)
		case d.ReadOnly:
			root.Devices = append(root.Devices, device)
		default:
			root.Writable = device
		}
	}
	return nil
}

func (s *supervisor) bringDisk(ctx context.Context, d vmm.Disk) (device string, err error) {
	mode := os.O_RDWR
	if d.ReadOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(d.Path, mode, 0)
	if err != nil {
		return "", fmt.Errorf("open disk: %w", err)
	}
	disk, err := agent.OpenDisk(ctx, s.plan.VM.VsockPath, s.plan.Setup.Token, f, d.ReadOnly)
	if err != nil {
		return "", errors.Join(err, f.Close())
	}
	return disk.Device(), s.machine.(*tenancy).add(servedDisk{disk, f})
}

// makeRoot has the guest make the container's root file system of the disks.
func (s *supervisor) makeRoot() error {
	ctx, cancel := context.WithTimeout(s.booting, s.plan.Limits.Call)
	defer cancel()
	reply, err := s.agent.Root(ctx, api.RootRequest{ID: s.plan.Start.ID, Root: s.plan.Setup.Root})
	s.guestPhases(reply.Phases)
	return s.guestError(err)
}

// moveOut has the guest write the container's disk back and let go of it, and ends
// the tenancy. It reports whether the VM has ended: where it is about to, the guest
// does all that in its own end. Only the first call does anything.
func (s *supervisor) moveOut() (vmEnded bool) {
	if s.movedOut {
		return false
	}
	s.movedOut = true
	ctx, cancel := context.WithTimeout(s.ctx, s.plan.Limits.Shutdown)
	defer cancel()
	err := s.agent.Release(ctx, s.plan.Start.ID)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeConflict {
		select {
		case <-s.machine.Done():
		case <-ctx.Done():
		}
	}
	vmEnded = closed(s.machine.Done())
	if err != nil && !vmEnded && !hasEnded(err) {
		s.log.Error("the guest did not let go of the disks: the last writes may be lost", "err", err)
	}
	if err := s.machine.Kill(); err != nil {
		s.log.Error("leave the microVM", "err", err)
	}
	return vmEnded
}
