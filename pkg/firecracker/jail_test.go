package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// These tests run the real jailer with the real Firecracker, as root. Without a
// boot that needs no KVM.

// jailDriver is a driver with a jail on a machine whose KVM is fake.
func jailDriver(t *testing.T) *Driver {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root has a jail")
	}
	d, err := newJailDriver(realBinary(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newJailDriver(binary, dir string) (*Driver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := New(Options{Binary: binary, Guard: []string{self, guardVerb}})
	fake, err := fakeHost(dir)
	d.host.kvm, d.host.cpuinfo, d.host.apiVersion = fake.kvm, fake.cpuinfo, fake.apiVersion
	return d, err
}

// runSteps runs the driver's steps up to a process that answers, or on to the
// configured VM.
func runSteps(d *Driver, c vmm.Config, configure bool) (*machine, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := d.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{m.clearSockets, m.openConsole, m.buildJail, m.openLog, m.startProcess, m.waitReady}
	if configure {
		steps = append(steps, m.configure)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			err = m.explain(err)
			m.abandon()
			return nil, err
		}
	}
	return m, nil
}

func jailMachine(t *testing.T, d *Driver, c vmm.Config) *machine {
	t.Helper()
	m, err := runSteps(d, c, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.abandon)
	return m
}

// listenerOf listens as a supervisor does before the start.
func listenerOf(t *testing.T, c vmm.Config, port int) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", c.VsockPath, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// show describes a file: type, mode, owner, group and links.
func show(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%v %d:%d %d", info.Mode(), st.Uid, st.Gid, st.Nlink)
}

// statusOf returns lines of /proc/PID/status by their keys.
func statusOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		all[key] = strings.Join(strings.Fields(value), " ")
	}
	return all
}

func TestJail(t *testing.T) {
	leak, err := unix.Open("/etc", unix.O_RDONLY|unix.O_DIRECTORY, 0) // no close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	t.Setenv("MICROPOD_SECRET", "x")
	old := unix.Umask(0) // the caller's umask must not matter
	defer unix.Umask(old)
	c := setup(t)
	listenerOf(t, c, 1024)
	d := jailDriver(t)
	m := jailMachine(t, d, c)
	id := m.jail.id()
	t.Run("process", func(t *testing.T) { checkJailedProcess(t, m) })
	t.Run("descriptors", func(t *testing.T) { checkJailedDescriptors(t, m) })
	t.Run("namespaces", func(t *testing.T) { checkNamespaces(t, m) })
	t.Run("files", func(t *testing.T) { checkJailFiles(t, m) })
	t.Run("cgroups", func(t *testing.T) { checkCgroups(t, m) })
	t.Run("sockets", func(t *testing.T) { checkWhoConnects(t, m) })
	if text := m.said.String() + m.stderr.String(); text != "" {
		t.Errorf("it complained: %s", text)
	}
	t.Run("configuration", func(t *testing.T) {
		got, err := m.api.VMConfig(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if got.BootSource.KernelImagePath != "/kernel" || got.Drives[1].PathOnHost != "/vdb" || got.Vsock.UDSPath != "/vsock.sock" {
			t.Errorf("%+v", got)
		}
	})
	m.abandon()
	checkFreed(t, d, c, id)
	if got := show(t, c.Disks[1].Path); got != "-rw------- 0:0 1" {
		t.Errorf("the disk came back as %s", got)
	}
	if got := show(t, c.VsockPath+"_1024"); !strings.HasSuffix(got, " 0:0 1") {
		t.Errorf("the listener's socket came back as %s", got)
	}
}

func checkJailedProcess(t *testing.T, m *machine) {
	id := strconv.Itoa(m.jail.id())
	status := statusOf(t, m.PID())
	for key, want := range map[string]string{
		"Name": "firecracker", "Uid": strings.Repeat(id+" ", 3) + id, "Gid": strings.Repeat(id+" ", 3) + id, "Groups": "",
		"CapInh": strings.Repeat("0", 16), "CapPrm": strings.Repeat("0", 16), "CapEff": strings.Repeat("0", 16),
		"CapAmb": strings.Repeat("0", 16), "NoNewPrivs": "1", "Umask": "0177",
	} {
		if status[key] != want {
			t.Errorf("%s is %q, want %q", key, status[key], want)
		}
	}
	proc := fmt.Sprintf("/proc/%d/", m.PID())
	if env, err := os.ReadFile(proc + "environ"); err != nil || len(env) != 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	if sid, err := unix.Getsid(m.PID()); err != nil || sid != m.PID() {
		t.Errorf("session %d of %d, %v", sid, m.PID(), err)
	}
	// Until the boot, only the thread that serves the API has its filter.
	threads, err := filepath.Glob(proc + "task/*/status")
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	filtered := 0
	for _, f := range threads {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), "\nSeccomp:\t2\n") {
			filtered++
		}
	}
	if filtered != 1 {
		t.Errorf("%d threads have a seccomp filter", filtered)
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Max core file size 0 0 bytes", "Max open files 2048 2048 files", "Max file size 134217728 134217728 bytes",
	} {
		if got := strings.Join(strings.Fields(lineOf(string(limits), want[:8])), " "); !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), want) {
			t.Errorf("limits do not say %q: %s", want, got)
		}
	}
}

func checkJailedDescriptors(t *testing.T, m *machine) {
	dir := fmt.Sprintf("/proc/%d/fd/", m.PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		to, err := os.Readlink(dir + e.Name())
		kind, _, _ := strings.Cut(to, ":")
		n, _ := strconv.Atoi(e.Name())
		switch {
		case err != nil:
		case n == 0 && to == "/dev/null", (n == 1 || n == 2) && kind == "pipe":
		case n > 2 && (kind == "socket" || kind == "anon_inode"):
		case n > 2 && strings.HasPrefix(to, "/"):
			files = append(files, to)
		default:
			t.Errorf("descriptor %d is %s", n, to)
		}
	}
	slices.Sort(files)
	// By their names in the jail: the files of this VM, and nothing else.
	if got := strings.Join(slices.Compact(files), " "); got != "/dev/urandom /initrd /kernel /log /vda /vdb" && got != "/initrd /kernel /log /vda /vdb" {
		t.Errorf("open files: %s", got)
	}
}

func checkNamespaces(t *testing.T, m *machine) {
	for _, ns := range []string{"pid", "mnt", "net"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", m.PID(), ns))
		ours, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || err2 != nil || theirs == ours {
			t.Errorf("%s namespace %s is ours, %v %v", ns, theirs, err, err2)
		}
	}
	// Nothing but a loopback that is down.
	interfaces, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", m.PID()))
	if err != nil || strings.Count(string(interfaces), ":") != 1 || !strings.Contains(string(interfaces), "lo:") {
		t.Errorf("its interfaces: %s, %v", interfaces, err)
	}
	root := fmt.Sprintf("/proc/%d/root", m.PID())
	a, err := os.Stat(root)
	b, err2 := os.Stat(m.jail.root)
	if err != nil || err2 != nil || !os.SameFile(a, b) {
		t.Errorf("its root is not the jail: %v %v", err, err2)
	}
	// The old root is not even mounted any more.
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(mounts), "\n"); n != 1 {
		t.Errorf("%d mounts:\n%s", n, mounts)
	}
	// Signals work as on any process: it is no init.
	pids := strings.Fields(statusOf(t, m.PID())["NSpid"])
	if len(pids) != 2 || pids[1] == "1" {
		t.Errorf("pids %v", pids)
	}
}

func checkJailFiles(t *testing.T, m *machine) {
	id := m.jail.id()
	owner := fmt.Sprintf(" %d:%d ", id, id)
	for path, want := range map[string]string{
		m.jail.base:                               "drwx------ 0:0 3",
		filepath.Dir(filepath.Dir(m.jail.root)):   "drwx------ 0:0 3",
		filepath.Dir(m.jail.root):                 "drwx------ 0:0 3",
		filepath.Join(m.jail.root, "kernel"):      "-rw----r-- 0:0 2",
		filepath.Join(m.jail.root, "initrd"):      "-rw----r-- 0:0 2",
		filepath.Join(m.jail.root, "vda"):         "-rw----r-- 0:0 2",
		filepath.Join(m.jail.root, "vdb"):         "-rw-------" + owner + "2",
		filepath.Join(m.jail.root, "log"):         "prw-------" + owner + "1",
		filepath.Join(m.jail.root, "api.sock"):    "Srw-------" + owner + "2",
		filepath.Join(m.jail.root, "vsock.sock"):  "Srw-------" + owner + "2",
		filepath.Join(m.jail.root, "dev/kvm"):     "Dcrw-------" + owner + "1",
		filepath.Join(m.jail.root, "dev/net/tun"): "Dcrw-------" + owner + "1",
		m.jail.root + "/vsock.sock_1024":          "Srw-------" + owner + "2",
		m.config.VsockPath:                        "Srw-------" + owner + "2",
		m.files.api:                               "Srw-------" + owner + "2",
	} {
		if got := show(t, path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if got := show(t, m.jail.root); !strings.HasPrefix(got, "drwx------"+owner) {
		t.Errorf("the jail's root is %s", got)
	}
}

func checkCgroups(t *testing.T, m *machine) {
	if missing := unlimited(m.jail.cgroups.in); len(missing) > 0 {
		t.Logf("this host has no %v", missing)
	}
	for _, h := range m.jail.cgroups.in {
		procs, err := os.ReadFile(filepath.Join(h.leaf(m.config.ID), "cgroup.procs"))
		if err != nil || !slices.Contains(strings.Fields(string(procs)), strconv.Itoa(m.PID())) {
			t.Errorf("%s: %d is not among %s, %v", h.mount, m.PID(), procs, err)
		}
		for _, controller := range h.controllers {
			for _, s := range limits(m.config, controller, h.v2) {
				got, err := os.ReadFile(filepath.Join(h.leaf(m.config.ID), s.file))
				if s.optional && errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil || strings.TrimSpace(string(got)) != s.value {
					t.Errorf("%s is %s, want %s: %v", s.file, got, s.value, err)
				}
			}
		}
	}
}

// checkWhoConnects tries every socket as root, as the jail's user and as
// somebody else, where only the sockets' own modes are in the way.
func checkWhoConnects(t *testing.T, m *machine) {
	top := filepath.Dir(m.config.Dir)
	for _, dir := range []string{top, m.config.Dir} {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(top, 0o700)
	for _, path := range []string{m.files.api, m.config.VsockPath, m.config.VsockPath + "_1024"} {
		for id, want := range map[int]error{0: nil, m.jail.id(): nil, m.jail.id() + 1: unix.EACCES, 65534: unix.EACCES} {
			if err := connectAs(id, path); !errors.Is(err, want) {
				t.Errorf("user %d connects to %s: %v, want %v", id, path, err, want)
			}
		}
	}
}

// connectAs connects with a user's rights to files, which root takes on by
// setfsuid(2), for one thread that ends here.
func connectAs(id int, path string) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			_, _, _ = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
			_ = unix.Setfsgid(id)
			_ = unix.Setfsuid(id)
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		result <- err
	}()
	return <-result
}

// checkFreed looks for everything that a jailed VM has.
func checkFreed(t *testing.T, d *Driver, c vmm.Config, id int) {
	t.Helper()
	for _, path := range []string{
		filepath.Join(c.Dir, jailDir), c.VsockPath, filepath.Join(c.Dir, "firecracker.sock"),
		leaseFile(d.host.idLeases(), uint32(id)),
	} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	in, err := d.host.hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range in {
		if _, err := os.Lstat(h.leaf(c.ID)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", h.leaf(c.ID), err)
		}
	}
	busy, err := idsOfProcesses()
	if err != nil || busy[uint32(id)] {
		t.Errorf("a process of user %d is left, %v", id, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), c.Dir) {
		t.Errorf("a mount is left, %v", err)
	}
}

// TestJailsAreApart: two VMs have two users, which share only what both read.
func TestJailsAreApart(t *testing.T) {
	d := jailDriver(t)
	a, b := setup(t), setup(t)
	b.ID = "bbbbbbbbbbbb"
	b.Disks[0] = a.Disks[0]
	m, n := jailMachine(t, d, a), jailMachine(t, d, b)
	if m.jail.id() == n.jail.id() {
		t.Errorf("both have user %d", m.jail.id())
	}
	if got := show(t, a.Disks[0].Path); got != "-rw----r-- 0:0 3" {
		t.Errorf("the shared disk is %s", got)
	}
	m.abandon()
	checkFreed(t, d, a, m.jail.id())
	if _, err := n.api.Instance(context.Background()); err != nil {
		t.Errorf("after the end of the other: %v", err)
	}
}

// TestManyJailsAtOnce: starts and ends that meet share the parent of their
// cgroups, and no user.
func TestManyJailsAtOnce(t *testing.T) {
	d := jailDriver(t)
	var wg sync.WaitGroup
	var users sync.Map
	for i := range 6 {
		wg.Go(func() {
			c := setup(t)
			c.ID = fmt.Sprintf("machine%05d", i)
			for range 3 {
				m, err := runSteps(d, c, true)
				if err != nil {
					t.Error(err)
					return
				}
				id := m.jail.id()
				if other, taken := users.LoadOrStore(id, i); taken {
					t.Errorf("%d has the user of %v", i, other)
				}
				if got := statusOf(t, m.PID())["Uid"]; !strings.HasPrefix(got, strconv.Itoa(id)+" ") {
					t.Errorf("%d runs as %s", i, got)
				}
				users.Delete(id)
				m.abandon()
				if got := names(t, c); got != before {
					t.Errorf("afterwards there are: %s", got)
				}
			}
		})
	}
	wg.Wait()
	in, err := d.host.hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range in {
		for i := range 6 {
			if _, err := os.Lstat(h.leaf(fmt.Sprintf("machine%05d", i))); err == nil {
				t.Errorf("the cgroup of %d is left in %s", i, h.mount)
			}
		}
	}
}

// TestJailOfBlockDevices: a device gets a node in the jail, the host's one stays
// as it is.
func TestJailOfBlockDevices(t *testing.T) {
	d := jailDriver(t)
	c := setup(t)
	for _, disk := range c.Disks {
		if err := errors.Join(os.Remove(disk.Path), unix.Mknod(disk.Path, unix.S_IFBLK|0o660, int(unix.Mkdev(7, 0)))); err != nil {
			t.Fatal(err)
		}
	}
	m, err := d.prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.abandon()
	if err := m.buildJail(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]string{"vda": "Dr--------", "vdb": "Drw-------"} {
		if got, want := show(t, filepath.Join(m.jail.root, name)), fmt.Sprintf("%s %d:%d 1", mode, m.jail.id(), m.jail.id()); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, disk := range c.Disks {
		if got := show(t, disk.Path); !strings.HasPrefix(got, "Drw-") || !strings.HasSuffix(got, " 0:0 1") {
			t.Errorf("the host's device is %s", got)
		}
	}
}

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

// TestPlantedLinks: a link in the jail's way is never followed (CVE-2026-1386).
func TestPlantedLinks(t *testing.T) {
	d := jailDriver(t)
	victim := filepath.Join(t.TempDir(), "victim")
	writeFile(t, victim, "precious")
	for name, tt := range map[string]struct {
		plant func(c vmm.Config) error
		want  string // "" for a start that works all the same
	}{
		"the jail is a link": {func(c vmm.Config) error { return os.Symlink(filepath.Dir(victim), filepath.Join(c.Dir, jailDir)) },
			"is no directory"},
		"a link in an old jail": {func(c vmm.Config) error {
			root := filepath.Join(c.Dir, jailDir, "firecracker", c.ID, "root")
			err := os.MkdirAll(filepath.Join(root, "dev"), 0o700)
			return errors.Join(err, os.Symlink(victim, filepath.Join(root, "firecracker")),
				os.Symlink(victim, filepath.Join(root, "firecracker.pid")), os.Symlink(victim, filepath.Join(root, "dev/kvm")))
		}, ""},
		"the place of the jail is others'": {func(c vmm.Config) error { return os.Chmod(c.Dir, 0o770) }, "others can write"},
		"its parent is others'":            {func(c vmm.Config) error { return os.Chmod(filepath.Dir(c.Dir), 0o777) }, "others can write"},
		"the place belongs to a user":      {func(c vmm.Config) error { return os.Chown(c.Dir, 1234, 1234) }, "belongs to user 1234"},
		"an old jail of a user": {func(c vmm.Config) error {
			jail := filepath.Join(c.Dir, jailDir)
			return errors.Join(os.Mkdir(jail, 0o700), os.Chown(jail, 1234, 1234))
		}, "belongs to user 1234"},
	} {
		t.Run(name, func(t *testing.T) {
			c := setup(t)
			if err := tt.plant(c); err != nil {
				t.Fatal(err)
			}
			m, err := runSteps(d, c, true)
			if err == nil {
				m.abandon()
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("start: %v, want %q", err, tt.want)
			}
			if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
				t.Errorf("the victim is %q, %v", text, err)
			}
			if got := show(t, victim); got != "-rw------- 0:0 1" {
				t.Errorf("the victim is %s", got)
			}
		})
	}
}

// TestJailRefusesOtherSockets: what a jail holds under the socket's name is
// given no name outside unless it is the VMM's socket.
func TestJailRefusesOtherSockets(t *testing.T) {
	c := setup(t)
	m := jailMachine(t, jailDriver(t), c)
	for name, plant := range map[string]func(path string) error{
		"a link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"ours":   func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	} {
		planted, out := filepath.Join(m.jail.root, "planted"), filepath.Join(c.Dir, "out")
		if err := plant(planted); err != nil {
			t.Fatal(err)
		}
		if err := m.jail.linkOut("planted", out); err == nil || !strings.Contains(err.Error(), "is no socket of the VMM") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is outside: %v", name, err)
		}
		if err := os.Remove(planted); err != nil {
			t.Fatal(err)
		}
	}
}

// tmpfs mounts a file system for this test.
func tmpfs(t *testing.T, flags uintptr) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fcfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=32m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestJailOfOtherFileSystems: files that cannot be linked are bound, and the
// jail may lie where neither devices nor programs are allowed.
func TestJailOfOtherFileSystems(t *testing.T) {
	d := jailDriver(t)
	files := setup(t)
	c := configIn(tmpfs(t, unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOSUID))
	c.Kernel, c.Initrd, c.Disks = files.Kernel, files.Initrd, files.Disks
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m := jailMachine(t, d, c)
	checkJailedDescriptors(t, m)
	for i, b := range m.jail.binds {
		want := []bind{
			{c.Kernel, filepath.Join(m.jail.root, "kernel"), true},
			{c.Initrd, filepath.Join(m.jail.root, "initrd"), true},
			{c.Disks[0].Path, filepath.Join(m.jail.root, "vda"), true},
			{c.Disks[1].Path, filepath.Join(m.jail.root, "vdb"), false},
		}
		if i >= len(want) || b != want[i] {
			t.Errorf("bind %d is %+v", i, b)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]string{"kernel": "ro", "initrd": "ro", "vda": "ro", "vdb": "rw"} {
		if want := " /" + name + " " + mode + ",nosuid,nodev,noexec"; !strings.Contains(string(mounts), want) {
			t.Errorf("no mount%s among\n%s", want, mounts)
		}
	}
	id := m.jail.id()
	if got := show(t, c.Disks[1].Path); got != fmt.Sprintf("-rw------- %d:%d 1", id, id) {
		t.Errorf("while it runs the disk is %s", got)
	}
	m.abandon()
	checkFreed(t, d, c, id)
	if got := show(t, c.Disks[1].Path); got != "-rw------- 0:0 1" {
		t.Errorf("the disk came back as %s", got)
	}
}

// TestJailOfPublicFiles: a file that lies in the open is not opened up.
func TestJailOfPublicFiles(t *testing.T) {
	d := jailDriver(t)
	public, err := os.MkdirTemp("", "fcpub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(public) })
	if err := os.Chmod(public, 0o755); err != nil {
		t.Fatal(err)
	}
	c := setup(t)
	c.Kernel = filepath.Join(public, "vmlinux")
	writeFile(t, c.Kernel, "a kernel")
	m := jailMachine(t, d, c)
	copied := filepath.Join(m.jail.root, "kernel")
	if got, want := show(t, copied), fmt.Sprintf("-r-------- %d:%d 1", m.jail.id(), m.jail.id()); got != want {
		t.Errorf("the copy is %s, want %s", got, want)
	}
	if text, err := os.ReadFile(copied); err != nil || string(text) != "a kernel" {
		t.Errorf("the copy holds %q, %v", text, err)
	}
	if got := show(t, c.Kernel); got != "-rw------- 0:0 1" {
		t.Errorf("the kernel is %s", got)
	}
	m.abandon()
	c.Disks[0].Path = filepath.Join(public, "disk")
	writeFile(t, c.Disks[0].Path, strings.Repeat("x", 4096))
	if _, err := runSteps(d, c, true); err == nil || !strings.Contains(err.Error(), "disk vda: ") || !strings.Contains(err.Error(), "put it into a directory of mode 0700") {
		t.Errorf("a disk in the open: %v", err)
	}
	if got := show(t, c.Disks[0].Path); got != "-rw------- 0:0 1" {
		t.Errorf("the disk is %s", got)
	}
}
