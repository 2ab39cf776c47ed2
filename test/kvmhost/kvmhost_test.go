package kvmhost

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/test/kvmhost/inside"
)

// parentEnv makes this test binary boot a host and wait to be killed.
const parentEnv = "KVMHOST_TEST_PARENT"

func TestMain(m *testing.M) {
	inside.Main()
	if os.Getenv(parentEnv) != "" {
		h, err := Start(context.Background(), Options{Emulate: true})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(h.process.cmd.Process.Pid)
		select {}
	}
	os.Exit(m.Run())
}

// needKernel ends a test on a machine that was not prepared for it.
func needKernel(t *testing.T) {
	t.Helper()
	if os.Getenv("MICROPOD_TEST_HOST_KERNEL") != "" {
		return
	}
	const missing = "MICROPOD_TEST_HOST_KERNEL is not set (make test does)"
	if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

func start(t *testing.T, o Options) *Host {
	t.Helper()
	h, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// shell runs a line of shell and returns what it printed.
func shell(t *testing.T, h *Host, user *User, line string) string {
	t.Helper()
	var out bytes.Buffer
	code, err := h.Run(t.Context(), Command{Args: []string{"sh", "-c", line}, User: user, Stdout: &out, Stderr: &out})
	if err != nil || code != 0 {
		t.Fatalf("%s: %d, %v: %s", line, code, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

// TestHost: one emulated host, in every way.
func TestHost(t *testing.T) {
	needKernel(t)
	show, share := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(show, "file"), []byte("shown"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, Options{Emulate: true, Show: []string{show}, Writable: []string{share}})
	for _, test := range []struct {
		name string
		run  func(*testing.T, *Host)
	}{
		{"exit codes", testExitCodes},
		{"errors", testErrors},
		{"streams", testStreams},
		{"many at once", testMany},
		{"kill", testKill},
		{"hang", testHang},
		{"background", testBackground},
		{"terminal", testTerminal},
		{"machine", testMachine},
		{"user", testUser},
		{"files", func(t *testing.T, h *Host) { testFiles(t, h, show, share) }},
		{"end", testEnd}, // the last: there is no host afterwards
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, h) })
	}
}

// TestHere: the same interface without a host.
func TestHere(t *testing.T) {
	h := &Host{}
	testExitCodes(t, h)
	testErrors(t, h)
	testStreams(t, h)
	testKill(t, h)
}

func testExitCodes(t *testing.T, h *Host) {
	for line, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -9 $$": 137, "kill $$": 143} {
		code, err := h.Run(t.Context(), Command{Args: []string{"sh", "-c", line}})
		if code != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", line, code, err, want)
		}
	}
}

func testErrors(t *testing.T, h *Host) {
	for want, c := range map[string]Command{
		"no command":                {},
		"executable file not found": {Args: []string{"no-such-program"}},
		"no such file":              {Args: []string{"/no-such-program"}},
		"permission denied":         {Args: []string{"/etc/passwd"}},
		"no directory /none":        {Args: []string{"true"}, Dir: "/none"},
	} {
		if code, err := h.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v; want %s", c.Args, code, err, want)
		}
	}
}

func testStreams(t *testing.T, h *Host) {
	input := strings.Repeat("0123456789abcdef", 1<<16)
	var out, errs bytes.Buffer
	code, err := h.Run(t.Context(), Command{
		Args: []string{"sh", "-c", "cat; echo $A >&2; pwd >&2"}, Env: []string{"A=b  c"}, Dir: "/usr",
		Stdin: strings.NewReader(input), Stdout: &out, Stderr: &errs,
	})
	if code != 0 || err != nil || out.String() != input || errs.String() != "b c\n/usr\n" {
		t.Errorf("%d, %v, %d bytes of %d, errors %q", code, err, out.Len(), len(input), errs.String())
	}
	// Input that nobody reads, and that does not end.
	r, w := io.Pipe()
	defer w.Close()
	if code, err := h.Run(t.Context(), Command{Args: []string{"true"}, Stdin: r}); code != 0 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
}

func testMany(t *testing.T, h *Host) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			var out strings.Builder
			code, err := h.Run(t.Context(), Command{Args: []string{"sh", "-c", "echo $0; exit $0", strconv.Itoa(i)}, Stdout: &out})
			if code != i || err != nil || out.String() != fmt.Sprintln(i) {
				t.Errorf("command %d: %d, %v, %q", i, code, err, out.String())
			}
		})
	}
	wg.Wait()
}

// testKill: a command ends with its context, and so do its children.
func testKill(t *testing.T, h *Host) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		bufio.NewReader(r).ReadString('\n')
		cancel()
		io.Copy(io.Discard, r)
	}()
	_, err := h.Run(ctx, Command{Args: []string{"sh", "-c", "echo ready; sleep 98765; true"}, Stdout: w})
	w.Close()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	gone := "for i in $(seq 600); do grep -zqsx 98765 /proc/[0-9]*/cmdline || exit 0; sleep 0.1; done; exit 1"
	if code, err := h.Run(t.Context(), Command{Args: []string{"sh", "-c", gone}}); code != 0 || err != nil {
		t.Errorf("the child is there: %d, %v", code, err)
	}
}

// testHang: a host that does not answer any more holds nobody.
func testHang(t *testing.T, h *Host) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := writerFunc(func(p []byte) (int, error) {
		h.process.cmd.Process.Signal(unix.SIGSTOP)
		cancel()
		return len(p), nil
	})
	_, err := h.Run(ctx, Command{Args: []string{"sh", "-c", "echo ready; sleep 1000"}, Stdout: ready})
	h.process.cmd.Process.Signal(unix.SIGCONT)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// testBackground: what a command leaves does not hold it, and lives on.
func testBackground(t *testing.T, h *Host) {
	pid := shell(t, h, nil, "setsid sleep 1000 & echo $!")
	shell(t, h, nil, "kill "+pid)
}

func testTerminal(t *testing.T, h *Host) {
	sizes := make(chan Size, 1)
	r, w := io.Pipe()
	var out bytes.Buffer
	seen := writerFunc(func(p []byte) (int, error) {
		out.Write(p)
		if strings.Contains(string(p), "ready") {
			sizes <- Size{Rows: 40, Cols: 120}
			go io.WriteString(w, "typed\n")
		}
		return len(p), nil
	})
	code, err := h.Run(t.Context(), Command{
		Args:  []string{"sh", "-c", "tty; stty size; echo ready; read a; until stty size | grep '40 120'; do sleep 0.1; done; echo got $a; exit 3"},
		Stdin: r, Stdout: seen, Terminal: &Terminal{Size: Size{Rows: 24, Cols: 80}, Resize: sizes},
	})
	w.Close()
	if want := "/dev/pts/0\r\n24 80\r\nready\r\ntyped\r\n40 120\r\ngot typed\r\n"; code != 3 || err != nil || out.String() != want {
		t.Errorf("%d, %v, %q; want %q", code, err, out.String(), want)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// testMachine: what tests, the jailer and networks need. The order matters: a
// device that one step makes is there for those after it.
func testMachine(t *testing.T, h *Host) {
	for _, step := range []struct{ line, want string }{
		{"cut -c 1-3 /sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"},
		{"hostname", "kvmhost"},
		{"grep -wom1 svm /proc/cpuinfo", "svm"},
		{"stat -c %A,%G /dev/kvm | cut -c 1-9,10", "crw-rw----"},
		{"stat -f -c %T / /tmp", "overlayfs\next2/ext3"},
		{"stat -f -c %T /sys/fs/cgroup", "cgroup2fs"},
		{"for c in cpu memory pids; do grep -wo $c /sys/fs/cgroup/cgroup.subtree_control; done", "cpu\nmemory\npids"},
		{"cat /sys/class/net/lo/operstate; ls /sys/class/net", "unknown\nlo"},
		{"ip tuntap add t0 mode tap && ip link add b0 type bridge && ip link set t0 master b0 && ls /sys/class/net", "b0\nlo\nt0"},
		{"unshare -m sh -c 'mkdir /tmp/r && mount -t tmpfs r /tmp/r && mkdir /tmp/r/old && cd /tmp/r && pivot_root . old && echo pivoted'", "pivoted"},
		{"echo x >/etc/kvmhost-test && cat /etc/kvmhost-test", "x"},
		{"mknod /tmp/null c 1 3 && echo x >/tmp/null && echo device", "device"},
		{"ulimit -n; ulimit -Hn", "1024\n524288"},
	} {
		if got := shell(t, h, nil, step.line); got != step.want {
			t.Errorf("%s: %q, want %q", step.line, got, step.want)
		}
	}
	if _, err := os.Stat("/etc/kvmhost-test"); err == nil {
		t.Error("the host has written into this machine")
	}
}

func testUser(t *testing.T, h *Host) {
	u := &User{UID: 1234, GID: 2345}
	group := shell(t, h, nil, "stat -c %g /dev/kvm")
	if got, want := shell(t, h, u, "id -u; id -g; id -G"), "1234\n2345\n2345 "+group; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	shell(t, h, u, "exec 3<>/dev/kvm && touch /tmp/by-user && ! touch /etc/by-user && grep -q '^CapEff:.0*$' /proc/self/status")
}

func testFiles(t *testing.T, h *Host, show, share string) {
	if got := shell(t, h, nil, "cat "+show+"/file; ! touch "+show+"/new 2>/dev/null"); got != "shown" {
		t.Errorf("shown directory: %q", got)
	}
	shell(t, h, nil, "echo result >"+share+"/out")
	if b, err := os.ReadFile(filepath.Join(share, "out")); err != nil || string(b) != "result\n" {
		t.Errorf("written file: %q, %v", b, err)
	}
}

// testEnd: whoever waits gets an error with the console, and QEMU is gone.
func testEnd(t *testing.T, h *Host) {
	_, err := h.Run(t.Context(), Command{Args: []string{"sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000"}})
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("error %v", err)
	}
	if _, err := h.Run(t.Context(), Command{Args: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "the KVM host has ended") {
		t.Errorf("error %v", err)
	}
	for range 2 {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Kill(h.process.cmd.Process.Pid, 0); err != unix.ESRCH {
		t.Errorf("QEMU: %v", err)
	}
}

// TestEndsWithParent: a host dies with the process that started it.
func TestEndsWithParent(t *testing.T) {
	needKernel(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	parent.Process.Kill()
	parent.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); unix.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			unix.Kill(pid, unix.SIGKILL)
			t.Fatal("QEMU lives on")
		}
	}
}

func TestStartErrors(t *testing.T) {
	t.Setenv("MICROPOD_TEST_HOST_KERNEL", "")
	if _, err := Start(t.Context(), Options{Emulate: true}); err == nil || !strings.Contains(err.Error(), "scripts/test-setup.sh") {
		t.Errorf("no kernel: %v", err)
	}
	if _, err := Start(t.Context(), Options{Emulate: true, Kernel: "/none"}); err == nil || !strings.Contains(err.Error(), "/none") {
		t.Errorf("kernel that is not there: %v", err)
	}
	text := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Emulate: true, Kernel: text}); err == nil {
		t.Error("a kernel that is none boots")
	}
}
