package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// lockedContainer is a container whose lock is held but whose supervisor does
// not answer: it is on its way up or down.
func lockedContainer(t *testing.T) (*Manager, state.VM, *state.FileLock) {
	t.Helper()
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := state.Config{ID: state.NewID(), Name: "between", Created: time.Now()}
	if err := m.state.Create(c, func(state.Paths) error { return nil }); err != nil {
		t.Fatal(err)
	}
	lock, err := m.state.Lock(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Unlock() })
	vm, err := m.state.Resolve(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	return m, vm, lock
}

// early fails the test if a verb returns although nothing was decided yet.
func early(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(10 * statePoll):
	}
}

// listen stands for a supervisor.
func listen(t *testing.T, m *Manager, vm state.VM) net.Listener {
	t.Helper()
	dir, err := os.Open(m.state.Paths(vm.ID).Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	// Through a descriptor: the whole path may be too long for a socket.
	l, err := net.Listen("unix", state.Paths{Dir: fmt.Sprintf("/proc/self/fd/%d", dir.Fd())}.Control())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestStopWaitsForTheSupervisor(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	done := make(chan error, 1)
	go func() { done <- m.Stop(t.Context(), vm.ID, nil, "") }()
	early(t, done)

	conn, err := listen(t, m, vm).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var cmd supervisor.Command
	if err := api.ReadMessage(conn, api.KindOpen, &cmd); err != nil || cmd.Op != supervisor.OpStop {
		t.Fatalf("got %+v, %v", cmd, err)
	}
	api.WriteMessage(conn, api.KindExit, supervisor.Final{ExitCode: 5})
	lock.Unlock()
	conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStopDoesNotBelieveAClosedConnection(t *testing.T) {
	m, vm, _ := lockedContainer(t)
	l := listen(t, m, vm)
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			api.ReadFrame(conn, nil)
			conn.Close() // as a supervisor does that has too many
		}
	}()
	if err := m.Stop(t.Context(), vm.ID, nil, ""); err == nil {
		t.Error("stopped what runs")
	}
}

func TestVerbsWaitForTheLock(t *testing.T) {
	verbs := map[string]func(context.Context, *Manager, string) error{
		"stop": func(ctx context.Context, m *Manager, id string) error { return m.Stop(ctx, id, nil, "") },
		"wait": func(ctx context.Context, m *Manager, id string) error {
			_, err := m.Wait(ctx, id, WaitNotRunning)
			return err
		},
		"rm":    func(ctx context.Context, m *Manager, id string) error { return m.Remove(ctx, id, false) },
		"rm -f": func(ctx context.Context, m *Manager, id string) error { return m.Remove(ctx, id, true) },
		"kill": func(ctx context.Context, m *Manager, id string) error {
			if err := m.Kill(ctx, id, syscall.SIGTERM); !errors.Is(err, ErrNotRunning) {
				return errors.Join(errors.New("killed what had ended"), err)
			}
			return nil
		},
		"start": func(ctx context.Context, m *Manager, id string) error {
			// There is no VMM here: that it says so shows that it tried.
			if _, err := m.Start(ctx, id, nil); !errors.As(err, new(*StartError)) {
				return errors.Join(errors.New("did not start what had ended"), err)
			}
			return nil
		},
	}
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, vm, lock := lockedContainer(t)
			done := make(chan error, 1)
			go func() { done <- verb(t.Context(), m, vm.ID) }()
			early(t, done)
			lock.Unlock()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWaitForTheLockIsInterrupted(t *testing.T) {
	m, vm, _ := lockedContainer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Remove(ctx, vm.ID, true); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(m.state.Paths(vm.ID).Dir); err != nil {
		t.Error(err)
	}
}

// TestAttachThatIsDropped: a client that the supervisor drops hears of the end that
// came then, whatever the restart policy has begun since.
func TestAttachThatIsDropped(t *testing.T) {
	m, vm, _ := lockedContainer(t)
	again := state.Status{Phase: state.PhaseRunning, RestartCount: 1}
	if err := state.WriteStatus(m.state.Paths(vm.ID), again); err != nil {
		t.Fatal(err)
	}
	l := listen(t, m, vm)
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			var cmd supervisor.Command
			if api.ReadMessage(conn, api.KindOpen, &cmd) == nil && cmd.Op == supervisor.OpWait {
				api.WriteMessage(conn, api.KindExit, supervisor.Final{ExitCode: 5, Error: "why"})
			}
			conn.Close()
		}
	}()
	a, err := m.attachRunning(t.Context(), vm, &Streams{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := a.Wait(); r.ExitCode != 5 || err == nil || err.Error() != "why" {
		t.Errorf("%+v, %v", r, err)
	}
}

// served lets a process that holds the container's lock stand for a VM that serves
// its files.
func served(t *testing.T, m *Manager, vm state.VM, lock *state.FileLock) *exec.Cmd {
	t.Helper()
	sleep := exec.Command("sleep", "1000")
	sleep.ExtraFiles = []*os.File{lock.File()}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sleep.Process.Kill(); sleep.Wait() })
	st := state.Status{Supervisor: state.IdentifyProcess(sleep.Process.Pid)}
	if err := errors.Join(state.WriteService(m.state.Paths(vm.ID), st), lock.Unlock()); err != nil {
		t.Fatal(err)
	}
	return sleep
}

// A container whose files are served does not run: nobody who wants one that runs
// waits for the end of the transfer.
func TestServedContainerDoesNotRun(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	served(t, m, vm, lock)
	all := func(Container) bool { return true }
	for name, verb := range map[string]func(context.Context) error{
		"stop": func(ctx context.Context) error { return m.Stop(ctx, vm.ID, nil, "") },
		"wait": func(ctx context.Context) error { _, err := m.Wait(ctx, vm.ID, WaitNotRunning); return err },
		"logs": func(ctx context.Context) error {
			return m.Logs(ctx, vm.ID, LogOptions{Follow: true, Tail: -1, Out: io.Discard, Err: io.Discard})
		},
		"kill":  func(ctx context.Context) error { return stopped(m.Kill(ctx, vm.ID, syscall.SIGTERM)) },
		"kill9": func(ctx context.Context) error { return stopped(m.Kill(ctx, vm.ID, syscall.SIGKILL)) },
		"pause": func(ctx context.Context) error { return stopped(m.Pause(ctx, vm.ID)) },
		"update": func(ctx context.Context) error {
			o := UpdateOptions{RestartPolicy: &RestartPolicy{Name: state.RestartAlways}}
			if err := m.Update(ctx, vm.ID, o); err != nil {
				return err
			}
			c, err := m.state.ReadConfig(vm.ID)
			if err == nil && c.HostConfig.RestartPolicy != *o.RestartPolicy {
				err = fmt.Errorf("the policy is %+v", c.HostConfig.RestartPolicy)
			}
			return err
		},
		"prune": func(ctx context.Context) error {
			if p, err := m.PruneContainers(ctx, all); err != nil || len(p.Deleted) > 0 {
				return fmt.Errorf("removed %v, %v", p.Deleted, err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Who waits waits for longer than this.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := verb(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	if m.vanished(vm.ID) {
		t.Error("it is gone")
	}
}

func stopped(err error) error {
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	return fmt.Errorf("it runs: %w", err)
}

// A start waits until the files are not served any more.
func TestStartWaitsForTheServer(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	sleep := served(t, m, vm, lock)
	done := make(chan error, 1)
	go func() { _, err := m.Start(t.Context(), vm.ID, nil); done <- err }()
	early(t, done)
	sleep.Process.Kill()
	if err := <-done; !errors.As(err, new(*StartError)) { // there is no VMM here
		t.Error(err)
	}
}

// TestRemoveOfTheServed: by force it goes whenever the service has begun.
func TestRemoveOfTheServed(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	done := make(chan error, 1)
	go func() { done <- m.Remove(t.Context(), vm.ID, true) }()
	early(t, done)
	sleep := served(t, m, vm, lock)
	if err := <-done; err != nil || !m.vanished(vm.ID) {
		t.Errorf("rm -f: %v", err)
	}
	if err := sleep.Wait(); err == nil {
		t.Error("its server was not ended")
	}
}

// TestWaitForOneThatIsKilled: between the end of its connections and that of its
// lock, a supervisor that was killed is not taken for one that is busy.
func TestWaitForOneThatIsKilled(t *testing.T) {
	m, vm, lock := lockedContainer(t)
	dying := exec.Command("sleep", "1000")
	dying.ExtraFiles = []*os.File{lock.File()}
	if err := dying.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dying.Process.Kill(); dying.Wait() })
	st := state.Status{Phase: state.PhaseRunning, Supervisor: state.IdentifyProcess(dying.Process.Pid)}
	if err := state.WriteStatus(m.state.Paths(vm.ID), st); err != nil {
		t.Fatal(err)
	}
	l := listen(t, m, vm)
	lock.Unlock()
	done := make(chan error, 1)
	var code int
	go func() {
		var err error
		code, err = m.Wait(t.Context(), vm.ID, WaitNotRunning)
		done <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	api.ReadFrame(conn, nil)
	conn.Close()
	early(t, done)
	dying.Process.Kill()
	if err := <-done; err != nil || code != exitLost {
		t.Errorf("code %d, %v", code, err)
	}
}
