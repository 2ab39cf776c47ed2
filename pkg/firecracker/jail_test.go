package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

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
