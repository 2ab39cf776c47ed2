package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// TestCleanWithoutRoot has nothing to do, and no right to try.
func TestCleanWithoutRoot(t *testing.T) {
	c := setup(t)
	jail := filepath.Join(c.Dir, jailDir)
	if err := os.Mkdir(jail, 0o700); err != nil {
		t.Fatal(err)
	}
	d := New(Options{})
	d.host.root, d.host.run, d.host.proc = false, "/none", "/none"
	if err := d.Clean(c.ID, c.Dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(jail); err != nil {
		t.Error(err)
	}
}

// TestJailStartsAgain: the same VM, twice, where a killed one left its jail.
func TestJailStartsAgain(t *testing.T) {
	c := setup(t)
	d := jailDriver(t)
	left := filepath.Join(c.Dir, jailDir, "firecracker", c.ID, "root")
	if err := os.MkdirAll(filepath.Join(left, "dev"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		m := jailMachine(t, d, c)
		m.abandon()
		checkFreed(t, d, c, m.jail.id())
	}
}

// TestDiskThatWasNotGivenBack: a supervisor that was killed left the disk to a
// jail's user, and nobody has cleaned up.
func TestDiskThatWasNotGivenBack(t *testing.T) {
	c := setup(t)
	d := jailDriver(t)
	if err := os.Chown(c.Disks[1].Path, firstJailID+7, firstJailID+7); err != nil {
		t.Fatal(err)
	}
	jailMachine(t, d, c).abandon()
	if got := show(t, c.Disks[1].Path); got != "-rw------- 0:0 1" {
		t.Errorf("the disk came back as %s", got)
	}
}

// TestMaxFile: the guest may fill its disks, and nothing may grow beyond.
func TestMaxFile(t *testing.T) {
	c := setup(t)
	for _, tt := range []struct {
		memory, readOnly, writable, want int64
	}{{64, 1, 1, 64}, {64, 1, 65, 65}, {64, 99, 65, 65}, {64, 99, 1, 64}} {
		c.MemoryMiB = int(tt.memory)
		if err := errors.Join(os.Truncate(c.Disks[0].Path, tt.readOnly<<20), os.Truncate(c.Disks[1].Path, tt.writable<<20)); err != nil {
			t.Fatal(err)
		}
		if got := maxFile(c); got != tt.want<<20 {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}

// TestJailEnds: how the VMM ends is told as if no guard stood between.
func TestJailEnds(t *testing.T) {
	d := jailDriver(t)
	bySignal := func(s unix.Signal) func(*machine) error {
		return func(m *machine) error { return unix.Kill(m.PID(), s) }
	}
	for name, tt := range map[string]struct {
		end  func(*machine) error
		want vmm.Exit
		bare bool // not configured
	}{
		"kill": {end: (*machine).Kill, want: vmm.Exit{Code: -1, Signal: 9, Reason: "killed"}},
		"killed by hand": {end: bySignal(unix.SIGKILL), want: vmm.Exit{Code: -1, Signal: 9,
			Reason: "firecracker was ended by signal 9 (SIGKILL)"}},
		"terminated": {end: bySignal(unix.SIGTERM), want: vmm.Exit{Code: -1, Signal: 15,
			Reason: "firecracker was ended by signal 15 (SIGTERM)"}},
		"aborted": {end: bySignal(unix.SIGABRT), want: vmm.Exit{Code: -1, Signal: 6,
			Reason: "firecracker panicked (SIGABRT)"}},
		"file size limit": {end: bySignal(unix.SIGXFSZ), want: vmm.Exit{Code: 151,
			Reason: "firecracker went over its file size limit (SIGXFSZ): "}},
		"error of its own": {end: loadNothing, bare: true, want: vmm.Exit{Code: 1,
			Reason: "firecracker stopped with an error: "}},
		"out of memory": {end: starve, want: vmm.Exit{Code: -1, Signal: 9,
			Reason: "firecracker was killed: it needed more memory than its cgroup has"}},
		"guard killed": {end: func(m *machine) error { return m.proc.cmd.Process.Kill() }, want: vmm.Exit{Code: -1, Signal: 9,
			Reason: "firecracker was ended by signal 9 (SIGKILL)"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := setup(t)
			m, err := runSteps(d, c, !tt.bare)
			if err != nil {
				t.Fatal(err)
			}
			pid := m.PID()
			go m.watch()
			if err := tt.end(m); err != nil {
				t.Fatal(err)
			}
			<-m.Done()
			e := m.Exit()
			if e.Code != tt.want.Code || e.Signal != tt.want.Signal || !strings.HasPrefix(e.Reason, tt.want.Reason) {
				t.Errorf("%+v, want %+v", e, tt.want)
			}
			if err := unix.Kill(pid, 0); err != unix.ESRCH {
				t.Errorf("process %d: %v", pid, err)
			}
			checkFreed(t, d, c, m.jail.id())
		})
	}
}

// starve puts a process into the VM's cgroup that takes more than there is. The
// kernel kills that one, so the test does the rest.
func starve(m *machine) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	hog := &exec.Cmd{Path: self, Args: []string{fakePrefix + "hog"}}
	for _, h := range m.jail.cgroups.in {
		hog.Args = append(hog.Args, filepath.Join(h.leaf(m.config.ID), "cgroup.procs"))
	}
	if err := hog.Run(); err == nil {
		return errors.New("the cgroup has no limit")
	}
	return unix.Kill(m.PID(), unix.SIGKILL)
}

// loadNothing is a failed load, which ends the process.
func loadNothing(m *machine) error {
	err := m.api.Do(context.Background(), LoadSnapshot(SnapshotLoad{SnapshotPath: "/none", MemBackend: MemoryBackend{"File", "/none"}}))
	if e := (*Error)(nil); errors.As(err, &e) {
		return nil
	}
	return fmt.Errorf("load of nothing: %w", err)
}

// TestJailDiesWithItsParent kills the process that started a VM, at the end of
// the start and in the middle of it, and has another one clean up.
func TestJailDiesWithItsParent(t *testing.T) {
	d := jailDriver(t)
	c := setup(t)
	parent := exec.Command(fakeBinary(t, "jailer-supervisor"), d.o.Binary, filepath.Dir(c.Dir))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid, id int
	if _, err := fmt.Fscan(out, &pid, &id); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if ended(t, fd, 0) {
		t.Fatal("it ended before its parent")
	}
	if got := show(t, c.Disks[1].Path); got != fmt.Sprintf("-rw------- %d:%d 2", id, id) {
		t.Errorf("while it runs its disk is %s", got)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	if !ended(t, fd, time.Minute) {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Error("the VMM outlived its parent")
	}
	for range 2 { // it is idempotent
		if err := d.Clean(c.ID, c.Dir); err != nil {
			t.Error(err)
		}
	}
	removeSockets(t, c)
	checkFreed(t, d, c, id)
	if got := show(t, c.Disks[1].Path); got != "-rw------- 0:0 1" {
		t.Errorf("the disk came back as %s", got)
	}
}

// removeSockets does what pkg/supervisor does for every driver.
func removeSockets(t *testing.T, c vmm.Config) {
	t.Helper()
	if err := errors.Join(remove(c.VsockPath), os.RemoveAll(c.Dir)); err != nil {
		t.Fatal(err)
	}
}

// TestCleanEndsWhatRuns: Clean does not depend on anybody else having killed.
func TestCleanEndsWhatRuns(t *testing.T) {
	d := jailDriver(t)
	c := setup(t)
	m := jailMachine(t, d, c)
	in := unlimited(m.jail.cgroups.in)
	if len(in) == len(controllers()) {
		t.Skip("this host has no cgroups")
	}
	if err := d.Clean(c.ID, c.Dir); err != nil {
		t.Error(err)
	}
	<-m.proc.exited
	m.abandon()
	checkFreed(t, d, c, m.jail.id())
}

// TestCleanLeavesOthersAlone: another VM of the host runs on.
func TestCleanLeavesOthersAlone(t *testing.T) {
	d := jailDriver(t)
	c := setup(t)
	m := jailMachine(t, d, c)
	other := setup(t)
	if err := d.Clean("bbbbbbbbbbbb", other.Dir); err != nil {
		t.Error(err)
	}
	if _, err := m.api.Instance(context.Background()); err != nil {
		t.Error(err)
	}
	if got := show(t, leaseFile(d.host.idLeases(), m.jail.lease.id)); got != "-rw------- 0:0 1" {
		t.Errorf("its lease is %s", got)
	}
	checkCgroups(t, m)
}
