package guest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// stopTimeout bounds the wait for killed containers when the guest leaves.
const stopTimeout = 10 * time.Second

// running returns the process of a container.
func (a *agent) running(id string) (*process, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.procs[id]
	if p == nil || !p.live {
		return nil, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("no process %q runs", api.Clean(id, api.MaxID))}
	}
	return p, nil
}

// container returns a container that runs.
func (a *agent) container(id string) (*process, error) {
	p, err := a.running(id)
	if err != nil || p.within != nil {
		return nil, notRunning(api.Clean(id, api.MaxID))
	}
	return p, nil
}

func (a *agent) signal(r api.SignalRequest) error {
	if r.Signal < 1 || r.Signal > 64 {
		return invalid("signal", "signal %d", r.Signal)
	}
	p, err := a.running(r.ID)
	if err != nil {
		return err
	}
	if err := a.reaper.signal(p.pid, syscall.Signal(r.Signal)); err != nil {
		return &api.Error{Code: api.CodeNotFound, Phase: "signal", Message: err.Error()}
	}
	return nil
}

// freeze stops all of a container, or lets it go on.
func (a *agent) freeze(r api.FreezeRequest) error {
	p, err := a.container(r.ID)
	if err != nil {
		return err
	}
	if err := p.cgroup.freeze(r.Frozen); err != nil {
		return internal("cgroup", err)
	}
	return nil
}

func (a *agent) resize(r api.ResizeRequest) error {
	p, err := a.running(r.ID)
	if err != nil {
		return err
	}
	if p.tty == nil {
		return invalid("resize", "process %s has no terminal", p.id)
	}
	return setWinsize(p.tty, r.Cols, r.Rows)
}

func setWinsize(f *os.File, cols, rows uint16) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	})
	return errors.Join(cerr, err)
}

// stopAll kills every container and waits until they are dead, so that their
// mounts are gone. So it does with operations on files.
func (a *agent) stopAll() {
	a.mu.Lock()
	a.leaving = true
	files := slices.Collect(maps.Keys(a.files))
	procs := make([]*process, 0, len(a.procs))
	for _, p := range a.procs {
		if p.live {
			procs = append(procs, p)
		}
	}
	a.mu.Unlock()
	timeout := time.After(stopTimeout)
	for _, p := range procs {
		_ = a.reaper.signal(p.pid, unix.SIGKILL)
	}
	for _, f := range files {
		_ = a.reaper.signal(f.pid, unix.SIGKILL)
	}
	for _, f := range files {
		select {
		case <-f.gone:
		case <-timeout:
			a.log.printf("an operation on files did not end within %s", stopTimeout)
			return
		}
	}
	for _, p := range procs {
		select {
		case <-p.life.Done():
		case <-timeout:
			a.log.printf("process %s did not die within %s", p.id, stopTimeout)
			return
		}
	}
}
