package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

// patternDir is the directory in Config.Dir of a guest that becomes a template.
const patternDir = "template"

// age is how long a guest has run when it becomes a template. Linux before 6.7
// takes a TSC of less than a second for an attempt to synchronize it with that of
// a VM that was just made: the guest's would start at zero once more, and the timer
// of its CPU, which counts by it, would be late by as much
// (https://git.kernel.org/torvalds/c/bf328e22e472).
const age = 1500 * time.Millisecond

// maker boots a guest, with nothing of a container, and writes its snapshot. It
// is under the VM's own id and in its directory: what it leaves when it is
// killed is what the VM would leave.
type maker struct {
	*machine
	dir   string // of the pattern
	spoke chan struct{}
	begun time.Time // the guest runs
}

// makeTemplate writes the template for VMs like c into dir.
func (d *Driver) makeTemplate(ctx context.Context, c vmm.Config, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, template.MakeLimit)
	defer cancel()
	m := &maker{dir: filepath.Join(c.Dir, patternDir), spoke: make(chan struct{}, 1)}
	if err := errors.Join(os.RemoveAll(m.dir), os.Mkdir(m.dir, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(m.dir)
	p := pattern(c, m.dir)
	if err := standIns(p.Disks); err != nil {
		return err
	}
	var err error
	if m.machine, err = d.prepare(ctx, p); err != nil {
		return err
	}
	m.named = true
	if m.requests, err = m.planPattern(p); err != nil {
		return err
	}
	trackPages(m.requests)
	return m.run(ctx, c.VsockPath, dir)
}

// run is the life of the guest.
func (m *maker) run(ctx context.Context, vsock, dir string) error {
	defer func() {
		if m.proc != nil {
			m.proc.kill()
		}
		m.release()
	}()
	steps := []step{{"listen", func(context.Context) error { return m.listen(vsock) }}}
	steps = append(steps, m.startSteps()...)
	steps = append(steps, m.bootSteps()...)
	steps = append(steps,
		step{"look at its release", m.checkRelease},
		step{"wait for the guest", func(ctx context.Context) error { m.begun = time.Now(); return m.awaitGuest(ctx) }},
		step{"write its snapshot", m.save},
		step{"take its snapshot", func(context.Context) error { return m.take(dir) }},
	)
	if err := m.do(ctx, steps); err != nil {
		return fmt.Errorf("make a template: %w", err)
	}
	return nil
}

// standIns makes the disks, which nobody reads: the guest has no driver yet.
func standIns(disks []vmm.Disk) error {
	for _, d := range disks {
		if err := os.WriteFile(d.Path, make([]byte, 512), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// trackPages makes Firecracker know which pages the guest wrote: the snapshot
// has those and no others.
func trackPages(requests []Request) {
	for i, r := range requests {
		if c, ok := r.Body.(MachineConfig); ok {
			c.TrackDirtyPages = true
			requests[i].Body = c
		}
	}
}

// listen is the host of the guest on all ports on which the VM's is.
func (m *maker) listen(vsock string) error {
	ports, err := listeners(vsock)
	if err != nil {
		return err
	}
	for _, port := range ports {
		l, err := net.Listen("unix", m.config.VsockPath+"_"+port)
		if err != nil {
			return err
		}
		m.onEnd(func() { l.Close() })
		go m.hear(l)
	}
	return nil
}

// hear tells of the first word of what connects, and holds it: a guest that is
// heard waits.
func (m *maker) hear(l net.Listener) {
	var held []net.Conn
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		held = append(held, conn)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			select {
			case m.spoke <- struct{}{}:
			default:
			}
		}
	}
	for _, conn := range held {
		conn.Close()
	}
}

// checkRelease says whether this Firecracker writes snapshots that VMs go on from.
func (m *maker) checkRelease(context.Context) error {
	return m.api.version.Load().canKeep(m.config.MemoryMiB)
}

func (m *maker) awaitGuest(ctx context.Context) error {
	failpoint.Here(failpoint.FirecrackerPattern)
	select {
	case <-m.spoke:
	case <-m.proc.exited:
		return errors.New("it ended before it called the host")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-time.After(age - time.Since(m.begun)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// save writes the snapshot. It resets all connections of the guest, which
// connects again when it goes on.
func (m *maker) save(ctx context.Context) error {
	if err := m.api.Do(ctx, PatchVM(Paused)); err != nil {
		return err
	}
	return m.api.Do(ctx, CreateSnapshot(SnapshotCreate{
		SnapshotPath: m.seenAs(m.place(templateState)), MemFilePath: m.seenAs(m.place(templateMemory)), SnapshotType: "Diff",
	}))
}

// place is where in its directory Firecracker writes a file: the root of its jail
// is the VM's own in any case.
func (m *maker) place(name string) string {
	if m.jail != nil {
		return name
	}
	return filepath.Join(patternDir, name)
}

// take moves the snapshot into dir, where nobody can write it any more: its VMM
// has ended. The VMM ran no code of a container, and is not believed all the same.
func (m *maker) take(dir string) error {
	failpoint.Here(failpoint.FirecrackerSaved)
	m.proc.kill()
	if m.jail != nil {
		return takeFiles(m.jail.root, dir, m.jail.id())
	}
	return takeFiles(m.dir, dir, os.Geteuid())
}

func takeFiles(from, dir string, owner int) error {
	for _, name := range []string{templateState, templateMemory} {
		to := filepath.Join(dir, name)
		if err := os.Rename(filepath.Join(from, name), to); err != nil {
			return err
		}
		info, err := os.Lstat(to)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !info.Mode().IsRegular() || st.Nlink != 1 || int(st.Uid) != owner {
			return fmt.Errorf("%s is no file that firecracker made", name)
		}
		if err := errors.Join(os.Lchown(to, os.Geteuid(), os.Getegid()), os.Chmod(to, 0o400)); err != nil {
			return err
		}
		if name == templateState {
			failpoint.Here(failpoint.FirecrackerTaken)
		}
	}
	return nil
}
