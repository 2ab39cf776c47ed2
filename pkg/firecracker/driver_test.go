package firecracker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

func testContext() context.Context { return context.Background() }

// configIn is a VM whose files are in dir; setup makes them.
func configIn(dir string) vmm.Config {
	at := func(name string) string { return filepath.Join(dir, name) }
	return vmm.Config{
		ID: "abcdef012345", Kernel: at("vmlinux"), Initrd: at("initrd"), CPUs: 1, MemoryMiB: 128,
		Disks:     []vmm.Disk{{Path: at("ro.img"), ReadOnly: true}, {Path: at("rw.img")}},
		VsockPath: at("vsock.sock"), ConsolePath: at("console.log"), ConsoleLimit: 64 << 10, Dir: at("vmm"),
	}
}

// setup makes the files of a VM in a short directory.
func setup(t *testing.T) vmm.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "fc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := configIn(dir)
	for _, f := range []string{c.Kernel, c.Initrd, c.Disks[0].Path, c.Disks[1].Path} {
		if err := os.WriteFile(f, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

// newDriver returns a driver on a fake firecracker and a fake host.
func newDriver(t *testing.T, mode string) *Driver {
	t.Helper()
	d := New(Options{Binary: fakeBinary(t, mode)})
	var err error
	if d.host, err = fakeHost(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return d
}

func start(t *testing.T, d *Driver, c vmm.Config) vmm.Machine {
	t.Helper()
	m, err := d.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Kill() })
	return m
}

// names lists what is in the VM's directories.
func names(t *testing.T, c vmm.Config) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Dir(c.Dir), func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			out = append(out, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

const (
	before = "initrd ro.img rw.img vmlinux"
	after  = "console.log initrd ro.img rw.img vmlinux"
	during = "console.log initrd ro.img rw.img vmlinux firecracker.log firecracker.sock vsock.sock"
)

func TestLifecycle(t *testing.T) {
	c := setup(t)
	m := start(t, newDriver(t, "ok"), c)
	if got := names(t, c); got != during {
		t.Errorf("while it runs there are: %s", got)
	}
	for _, f := range []string{"vmm/firecracker.sock", "vmm/firecracker.log", "vsock.sock", "console.log"} {
		info, err := os.Stat(filepath.Join(filepath.Dir(c.Dir), f))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	order(t, c, "print hello", "exit 0")
	<-m.Done()
	if e := m.Exit(); e != (vmm.Exit{}) {
		t.Errorf("exit %+v", e)
	}
	if got := names(t, c); got != after {
		t.Errorf("afterwards there are: %s", got)
	}
	if text, err := os.ReadFile(c.ConsolePath); err != nil || string(text) != "hello\n" {
		t.Errorf("console %q, %v", text, err)
	}
	if err := m.Kill(); err != nil {
		t.Errorf("kill after the end: %v", err)
	}
}

func TestExitReasons(t *testing.T) {
	for _, tt := range []struct {
		orders []string
		want   vmm.Exit
		reason string
	}{
		{[]string{"exit 0"}, vmm.Exit{}, ""},
		{[]string{"exit 1"}, vmm.Exit{Code: 1}, "firecracker stopped with an error"},
		{[]string{"exit 148"}, vmm.Exit{Code: 148}, "seccomp"},
		{[]string{"exit 149"}, vmm.Exit{Code: 149}, "SIGBUS"},
		{[]string{"exit 77"}, vmm.Exit{Code: 77}, "unknown code"},
		{[]string{"print x [1.0] Kernel panic - not syncing: Attempted to kill init! \x1b[2J", "exit 0"}, vmm.Exit{},
			"guest console: Kernel panic - not syncing: Attempted to kill init! [2J"},
	} {
		c := setup(t)
		m := start(t, newDriver(t, "ok"), c)
		order(t, c, tt.orders...)
		<-m.Done()
		e := m.Exit()
		if e.Code != tt.want.Code || e.Signal != 0 || !strings.Contains(e.Reason, tt.reason) || (tt.reason == "") != (e.Reason == "") {
			t.Errorf("%v: %+v", tt.orders, e)
		}
	}
}

func TestKill(t *testing.T) {
	c := setup(t)
	m := start(t, newDriver(t, "ok"), c)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := m.Kill(); err != nil {
				t.Error(err)
			}
			select {
			case <-m.Done():
			default:
				t.Error("kill returned before done")
			}
		})
	}
	wg.Wait()
	if e := m.Exit(); e != (vmm.Exit{Code: -1, Signal: 9, Reason: "killed"}) {
		t.Errorf("exit %+v", e)
	}
	if got := names(t, c); got != after {
		t.Errorf("afterwards there are: %s", got)
	}
}

func TestKilledByHand(t *testing.T) {
	c := setup(t)
	m := start(t, newDriver(t, "ok"), c)
	if err := unix.Kill(m.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if e := m.Exit(); e.Signal != 9 || e.Code != -1 || !strings.Contains(e.Reason, "signal 9 (SIGKILL)") {
		t.Errorf("exit %+v", e)
	}
	if got := names(t, c); got != after {
		t.Errorf("afterwards there are: %s", got)
	}
}

func TestConsoleIsCapped(t *testing.T) {
	c := setup(t)
	m := start(t, newDriver(t, "ok"), c)
	order(t, c, "flood 10000", "exit 0")
	<-m.Done()
	info, err := os.Stat(c.ConsolePath)
	if err != nil || info.Size() != c.ConsoleLimit {
		t.Errorf("console has %v bytes, want %d: %v", info.Size(), c.ConsoleLimit, err)
	}
	if n := m.(*machine).console.dropped; n != 10000*1024-c.ConsoleLimit {
		t.Errorf("%d bytes counted as dropped", n)
	}
}

func TestFailedStarts(t *testing.T) {
	for _, tt := range []struct {
		mode string
		want []string
		is   error
	}{
		{"early", []string{"wait for the API", "ended before it answered", "exit code 153", "refused its arguments: Arguments parsing error: no such argument"}, nil},
		{"never", []string{"wait for the API"}, context.Canceled},
		{"silent", []string{"wait for the API"}, context.Canceled},
		{"hang", []string{"boot", "PUT /actions"}, context.Canceled},
		{"refuse", []string{"configure", "PUT /drives/vdb: Drive config error: Unable to open"}, nil},
		{"die", []string{"configure", "PUT /boot-source", "signal 15 (SIGTERM)", "thread 'fc_api' panicked"}, nil},
		{"v1.11.0", []string{"too old", "1.12.0"}, vmm.ErrUnavailable},
		{"v2.0.0", []string{"another API"}, vmm.ErrUnavailable},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			c := setup(t)
			d := newDriver(t, tt.mode)
			// A fake that will never go on says "waiting" in its log.
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			d.log = slog.New(slog.NewTextHandler(trigger{"line=waiting", cancel}, &slog.HandlerOptions{Level: slog.LevelDebug}))
			m, err := d.Start(ctx, c)
			if err == nil {
				_ = m.Kill()
				t.Fatal("it started")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not say %q", err, want)
				}
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v: is no %v", err, tt.is)
			}
			if got := names(t, c); got != before {
				t.Errorf("afterwards there are: %s", got)
			}
			if kids := children(t); kids != "" {
				t.Errorf("processes left: %s", kids)
			}
		})
	}
}

func TestCancelledBefore(t *testing.T) {
	c := setup(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newDriver(t, "ok").Start(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := names(t, c); got != before {
		t.Errorf("afterwards there are: %s", got)
	}
}

// trigger is a writer that waits for a text.
type trigger struct {
	text string
	call func()
}

func (w trigger) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.call()
	}
	return len(p), nil
}

// children lists the processes whose parent is this one.
func children(t *testing.T) string {
	t.Helper()
	out, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var all string
	for _, f := range out {
		text, err := os.ReadFile(f)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}

func TestMissingFiles(t *testing.T) {
	for what, change := range map[string]func(*vmm.Config){
		"kernel":   func(c *vmm.Config) { c.Kernel += "x" },
		"initrd":   func(c *vmm.Config) { c.Initrd += "x" },
		"disk vdb": func(c *vmm.Config) { c.Disks[1].Path += "x" },
	} {
		c := setup(t)
		change(&c)
		_, err := newDriver(t, "ok").Start(context.Background(), c)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	c := setup(t)
	c.Disks[0].Path = c.Dir
	if _, err := newDriver(t, "ok").Start(context.Background(), c); err == nil || !strings.Contains(err.Error(), "neither a file nor a block device") {
		t.Errorf("directory as a disk: %v", err)
	}
}

func TestStaleSockets(t *testing.T) {
	c := setup(t)
	// A killed VMM leaves its sockets and its log's FIFO.
	for _, path := range []string{c.VsockPath, filepath.Join(c.Dir, "firecracker.sock")} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	if err := unix.Mkfifo(filepath.Join(c.Dir, "firecracker.log"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, newDriver(t, "ok"), c)
	_, err := newDriver(t, "ok").Start(context.Background(), c)
	if err == nil || !strings.Contains(err.Error(), "is in use by another process") {
		t.Errorf("second VM on the same paths: %v", err)
	}
	if got := names(t, c); got != during {
		t.Errorf("the first VM lost a file: %s", got)
	}
	order(t, c, "exit 0")
	<-m.Done()
	if err := os.WriteFile(c.VsockPath, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newDriver(t, "ok").Start(context.Background(), c); err == nil || !strings.Contains(err.Error(), "it is no socket") {
		t.Errorf("file at the vsock's path: %v", err)
	}
	if text, err := os.ReadFile(c.VsockPath); string(text) != "precious" {
		t.Errorf("the file is gone: %v", err)
	}
}

// TestProcess looks at what the VMM got from us, with a descriptor and a
// variable around that it must not get.
func TestProcess(t *testing.T) {
	t.Setenv("MICROPOD_SECRET", "x")
	leak, err := unix.Open("/etc", unix.O_RDONLY|unix.O_DIRECTORY, 0) // no close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	old := unix.Umask(0) // the caller's umask must not matter
	unix.Umask(old)
	c := setup(t)
	m := start(t, newDriver(t, "ok"), c)
	proc := fmt.Sprintf("/proc/%d/", m.PID())
	if env, err := os.ReadFile(proc + "environ"); err != nil || len(env) != 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	if cwd, err := os.Readlink(proc + "cwd"); err != nil || cwd != "/" {
		t.Errorf("working directory %s, %v", cwd, err)
	}
	if sid, err := unix.Getsid(m.PID()); err != nil || sid != m.PID() {
		t.Errorf("session %d of %d, %v", sid, m.PID(), err)
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil || !bytes.Contains(status, []byte("\nUmask:\t0177\n")) {
		t.Errorf("no umask of 0177 in %s, %v", status, err)
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil || strings.Join(strings.Fields(lineOf(string(limits), "Max core")), " ") != "Max core file size 0 0 bytes" {
		t.Errorf("core limit %q, %v", lineOf(string(limits), "Max core"), err)
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink(proc + "fd/" + fd.Name())
		kind, _, _ := strings.Cut(to, ":")
		n, _ := strconv.Atoi(fd.Name())
		switch {
		case err != nil:
		case n == 0 && to == "/dev/null", (n == 1 || n == 2) && kind == "pipe":
		case n > 2 && (kind == "socket" || kind == "anon_inode" || to == filepath.Join(c.Dir, "firecracker.log")):
		case n > 2 && strings.HasPrefix(to, "/sys/fs/cgroup/"): // of the Go runtime in the fake
		default:
			t.Errorf("descriptor %d is %s", n, to)
		}
	}
	if now := unix.Umask(old); now != old {
		t.Errorf("our own umask became %o", now)
	}
}

func lineOf(text, prefix string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
	return ""
}

// TestDiesWithItsParent kills the process that started the VM.
func TestDiesWithItsParent(t *testing.T) { testDiesWithItsParent(t) }

func testDiesWithItsParent(t *testing.T, more ...string) {
	t.Helper()
	c := setup(t)
	parent := exec.Command(fakeBinary(t, "supervisor"), append([]string{fakeBinary(t, "ok"), filepath.Dir(c.Dir)}, more...)...)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
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
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	if !ended(t, fd, time.Minute) {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Error("the VMM outlived its parent")
	}
}

// ended reports whether the process of a pidfd ends within the time.
func ended(t *testing.T, pidfd int, within time.Duration) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(within.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	}
}

// TestLooseSockets: a VMM whose sockets come out open to all.
func TestLooseSockets(t *testing.T) {
	c := setup(t)
	m := start(t, newDriver(t, "loose"), c)
	for _, path := range []string{filepath.Join(c.Dir, "firecracker.sock"), c.VsockPath} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	_ = m.Kill()
}

// TestNothingLeaks starts and ends VMs, well and badly, and counts.
func TestNothingLeaks(t *testing.T) {
	c := setup(t)
	good, bad := newDriver(t, "ok"), newDriver(t, "refuse")
	round := func() {
		m := start(t, good, c)
		_ = m.Kill()
		if _, err := bad.Start(context.Background(), c); err == nil {
			t.Fatal("it started")
		}
	}
	count := func() (fds, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), runtime.NumGoroutine()
	}
	round()
	fds, goroutines := count()
	for range 10 {
		round()
	}
	waitFor(t, func() bool {
		f, g := count()
		return f <= fds && g <= goroutines && len(umasks(t)) <= 1
	})
}

// umasks lists those of this process's threads: a thread that made a VM has one
// of its own, and must not make files for others later.
func umasks(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	main := fmt.Sprintf("/proc/self/task/%d/status", os.Getpid())
	for _, f := range tasks {
		if f == main { // the runtime parks this one for ever instead of ending it
			continue
		}
		if text, err := os.ReadFile(f); err == nil { // it may have ended
			out[lineOf(string(text), "Umask:")] = true
		}
	}
	return out
}

func TestManyAtOnce(t *testing.T) {
	d := newDriver(t, "ok")
	var wg sync.WaitGroup
	for i := range 5 {
		c := setup(t)
		c.ID = fmt.Sprintf("machine%05d", i)
		wg.Go(func() {
			m, err := d.Start(context.Background(), c)
			if err != nil {
				t.Error(err)
				return
			}
			defer m.Kill()
			order(t, c, fmt.Sprintf("print I am %d", i), "exit 0")
			<-m.Done()
			if text, err := os.ReadFile(c.ConsolePath); string(text) != fmt.Sprintf("I am %d\n", i) {
				t.Errorf("console %q, %v", text, err)
			}
		})
	}
	wg.Wait()
}

func TestLogIsForwarded(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	d := newDriver(t, "ok")
	d.log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := setup(t)
	m := start(t, d, c)
	_ = m.Kill()
	for _, want := range []string{`step=boot`, `[abcdef012345:main:INFO] Running`, `vm=abcdef012345`, `version=1.16.1`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// TestRelativePaths: the VMM runs elsewhere, so the driver makes them absolute.
func TestRelativePaths(t *testing.T) {
	c := setup(t)
	t.Chdir(filepath.Dir(c.Dir))
	rel := configIn("")
	m := start(t, newDriver(t, "ok"), rel)
	if got := names(t, c); got != during {
		t.Errorf("there are: %s", got)
	}
	_ = m.Kill()
}
