package fidelity

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reference is docker's own engine, started for this test.
type reference struct {
	engine
	major    int
	cgroupV1 bool
}

// startReference starts an engine that shares nothing with another one of the
// machine, and ends it with the test. If the test dies, the kernel ends it.
func startReference(t *testing.T) *reference {
	t.Helper()
	docker, daemon := installed(t, "docker"), installed(t, "dockerd")
	dir, err := os.MkdirTemp("", "fidelity") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeMounted(dir); err != nil {
			t.Error(err)
		}
	})
	host := "unix://" + dir + "/docker.sock"
	ref := &reference{engine: engine{
		name: "docker", bin: docker, args: []string{"--host", host},
		env: []string{"DOCKER_CONFIG=" + dir, "DOCKER_CONTEXT=", "DOCKER_HOST="},
	}}
	parent := fmt.Sprintf("/fidelity-%d", os.Getpid())
	t.Cleanup(func() { removeCgroups(parent) })
	defaultSignals(t)
	d := &daemonProcess{ended: make(chan struct{})}
	d.start(t, daemon, append(reducedRuntime(t, dir), "--host", host, "--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"--pidfile", dir+"/docker.pid", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
		"--cgroup-parent", parent, "--log-level=error", "--default-ulimit", defaultUlimit(t))...)
	ref.major = ref.version(t, d)
	ref.cgroupV1 = ref.must(t, "info", "--format", "{{.CgroupVersion}}") != "2"
	return ref
}

func installed(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%v (scripts/test-setup.sh installs it)", err)
	}
	return path
}

// defaultUlimit is what a service manager gives the engine, and newer engines
// all containers. Some machines have less, even for root.
func defaultUlimit(t *testing.T) string {
	t.Helper()
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("nofile=1024:%d", min(524288, files.Max))
}

// defaultSignals ends what this process was told to ignore, for the programs that
// it starts: the engine's containers inherit it. A shell or a runner of tests may
// ignore signals that Go's runtime never looks at.
func defaultSignals(t *testing.T) {
	t.Helper()
	const sigIgn, last = 1, 64
	for s := uintptr(1); s <= last; s++ {
		// Handler, flags, restorer, mask: the kernel's struct sigaction, sigaction(2).
		var action [4]uintptr
		at := unsafe.Pointer(&action)
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, 0, uintptr(at), unsafe.Sizeof(action[3]), 0, 0)
		if errno == 0 && action[0] == sigIgn {
			action = [4]uintptr{}
			_, _, errno = unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, uintptr(at), 0, unsafe.Sizeof(action[3]), 0, 0)
		}
		if errno != 0 {
			t.Fatalf("signal %d: %v", s, errno)
		}
	}
}

// version waits until the engine answers, and returns the first part of its
// version.
func (ref *reference) version(t *testing.T, d *daemonProcess) int {
	t.Helper()
	for {
		r, err := ref.do(t.Context(), "", "version", "--format", "{{.Server.Version}}")
		if v := strings.TrimSpace(r.stdout); err == nil && r.code == 0 && v != "" {
			first, _, _ := strings.Cut(v, ".")
			major, err := strconv.Atoi(first)
			if err != nil {
				t.Fatalf("version %q of the engine: %v", v, err)
			}
			return major
		}
		select {
		case <-d.ended:
			t.Fatalf("dockerd ended:\n%s", d.log.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// reducedRuntime are flags of the engine for machines where root itself has not
// every capability: one that it has not cannot be given, not even to a privileged
// container. A runtime before runc asks for less then.
func reducedRuntime(t *testing.T, dir string) []string {
	t.Helper()
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if has == 1 {
		return nil
	}
	script := `#!/bin/sh
last=
for arg; do
	case $last in
	--bundle) file=$arg/config.json ;;
	--process) file=$arg ;;
	esac
	last=$arg
done
[ -z "$file" ] || sed -i 's/"CAP_SYS_RESOURCE",//g; s/,"CAP_SYS_RESOURCE"//g' "$file"
exec runc "$@"
`
	path := filepath.Join(dir, "runtime")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"--add-runtime", "reduced=" + path, "--default-runtime", "reduced"}
}

// daemonProcess is a process that ends with this one.
type daemonProcess struct {
	log   bytes.Buffer
	ended chan struct{}
}

// stopTime is more than the engine gives its containers.
const stopTime = time.Minute

func (d *daemonProcess) start(t *testing.T, bin string, args ...string) {
	t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		// The signal comes when this thread ends, not the process.
		runtime.LockOSThread()
		defer close(d.ended)
		// Containers inherit it, and ours may be nicer.
		err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it ends its containerd too
		select {
		case <-d.ended:
		case <-time.After(stopTime):
			t.Errorf("dockerd does not end:\n%s", d.log.String())
			_ = cmd.Process.Kill()
			<-d.ended
		}
	})
}

// removeMounted removes a directory and what is mounted below it.
func removeMounted(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	// A shim that ends may still write there.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err := os.RemoveAll(dir); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// removeCgroups removes the empty cgroups of the engine, in every hierarchy.
func removeCgroups(parent string) {
	const top = "/sys/fs/cgroup"
	for _, pattern := range []string{top + parent, top + "/*" + parent} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			var all []string
			_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			for _, d := range slices.Backward(all) {
				_ = os.Remove(d)
			}
		}
	}
}
