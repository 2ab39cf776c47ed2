package guest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/vmm"
)

// change returns r after f.
func change(r api.StartRequest, f func(*api.StartRequest)) api.StartRequest {
	f(&r)
	return r
}

func withUser(user, script string) api.StartRequest {
	return change(sh(script), func(r *api.StartRequest) { r.User = user })
}

// TestGuest runs many containers in one VM, one after another.
func TestGuest(t *testing.T) {
	vm := newVM(t)
	t.Run("hello", func(t *testing.T) { checkHello(t, vm.client.Hello()) })
	t.Run("output", func(t *testing.T) { vm.checkOutput(t) })
	t.Run("failures", func(t *testing.T) { vm.checkFailures(t) })
	t.Run("stdin", func(t *testing.T) { vm.checkStdin(t) })
	t.Run("signals", func(t *testing.T) { vm.checkSignals(t) })
	t.Run("terminal", func(t *testing.T) { vm.checkTerminal(t) })
	t.Run("isolation", func(t *testing.T) { vm.checkIsolation(t) })
	t.Run("stalled reader", func(t *testing.T) { vm.checkStalled(t) })
	t.Run("late stdio", func(t *testing.T) { vm.checkLateStdio(t) })
	t.Run("second connection", func(t *testing.T) { vm.checkSecondConnection(t) })
	t.Run("shutdown", func(t *testing.T) { vm.checkShutdown(t) })
}

func checkHello(t *testing.T, h api.Hello) {
	if h.Version != api.Version || !strings.Contains(h.Kernel, ".") {
		t.Errorf("hello %+v", h)
	}
	last := time.Duration(0)
	for _, p := range h.Phases {
		if p.At < last {
			t.Errorf("phase %s at %v, after %v", p.Name, p.At, last)
		}
		last = p.At
		t.Logf("%-10s %v", p.Name, p.At)
	}
	if last == 0 {
		t.Error("no phases")
	}
}

// checkOutput compares what containers print and how they end.
func (vm *guestVM) checkOutput(t *testing.T) {
	tests := []struct {
		name           string
		r              api.StartRequest
		stdout, stderr string
		code           int
	}{
		{"apart", sh("echo out; echo err >&2; exit 7"), "out\n", "err\n", 7},
		{"killed", sh("kill -9 $$; echo still here"), "still here\n", "", 0}, // pid 1 is immune from inside
		{"init killed", change(sh("kill -9 $$"), func(r *api.StartRequest) { r.Init = true }), "", "", 137},
		{"init", change(sh("test $$ != 1 && head -c 13 /proc/1/comm; exit 3"), func(r *api.StartRequest) { r.Init = true }), "micropod-init", "", 3},
		{"init reaps", change(sh("p=$(sleep 0.2 > /dev/null & echo $!); for i in $(seq 600); do test -e /proc/$p || break; sleep 0.1; done; ps -o stat | grep -c Z"), func(r *api.StartRequest) { r.Init = true }), "0\n", "", 1},
		{"pid", sh("echo $$ $PPID; ps -o pid,pgid,sid,comm | grep -w 1 | head -n 1 | tr -s ' '"), "1 0\n 1 1 1 sh\n", "", 0},
		{"child holds stdout", sh("sleep 1000 & echo gone"), "gone\n", "", 0},
		{"root", sh("id; echo $HOME"), "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n/root\n", "", 0},
		{"name", withUser("alice", "id; echo $HOME"), "uid=1000(alice) gid=1000(alice) groups=29(audio),44(video),1000(alice)\n/home/alice\n", "", 0},
		{"uid", withUser("1000", "id -G; echo $HOME"), "1000 29 44\n/home/alice\n", "", 0},
		{"uid and gid", withUser("1000:1000", "id -G"), "1000\n", "", 0},
		{"name and group", withUser("alice:audio", "id -g; id -G"), "29\n29\n", "", 0},
		{"group only", withUser(":29", "id -u; id -g; id -G"), "0\n29\n29\n", "", 0},
		{"unknown uid", withUser("31337", "id -u; id -g; id -G; echo $HOME"), "31337\n0\n0\n/\n", "", 0},
		{"digits are a uid", withUser("4242", "id -u; id -g"), "4242\n0\n", "", 0},
		{"no home", withUser("nohome", "echo [$HOME]"), "[]\n", "", 0},
		{"group add", change(sh("id -G"), func(r *api.StartRequest) { r.User = "alice:alice"; r.GroupAdd = []string{"video", "77"} }), "1000 44 77\n", "", 0},
		{"user reopens stdout", withUser("alice", "echo a > /dev/stdout; echo b > /dev/stderr"), "a\n", "b\n", 0},
		{"caps of root", sh("grep Cap /proc/self/status | tr -d '\\t\\n '"), "CapInh:0000000000000000CapPrm:00000000a80425fbCapEff:00000000a80425fbCapBnd:00000000a80425fbCapAmb:0000000000000000", "", 0},
		{"caps of a user", withUser("alice", "grep Cap /proc/self/status | tr -d '\\t\\n '"), "CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000CapBnd:00000000a80425fbCapAmb:0000000000000000", "", 0},
		{"no new privileges", change(sh("grep NoNewPrivs /proc/self/status"), func(r *api.StartRequest) { r.Spec.Process.NoNewPrivileges = true }), "NoNewPrivs:\t1\n", "", 0},
		{"filter", filtered(sh("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; unshare -m true; mount -t tmpfs x /mnt; test -w /; chmod 700 /home && echo works")),
			"NoNewPrivs:\t0\nSeccomp:\t2\nworks\n", "unshare: unshare(0x20000): Operation not permitted\nmount: permission denied (are you root?)\n", 0},
		{"filter without new privileges", change(filtered(withUser("alice", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status")), func(r *api.StartRequest) { r.Spec.Process.NoNewPrivileges = true }), "NoNewPrivs:\t1\nSeccomp:\t2\n", "", 0},
		{"init has no more rights", change(filtered(withUser("alice", "for p in 1 self; do grep -E '^(Uid|Groups|CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/$p/status | tr -d ' \\t\\n'; echo; done; cat /proc/1/comm")), func(r *api.StartRequest) { r.Init = true }),
			strings.Repeat("Uid:1000100010001000Groups:29441000CapPrm:0000000000000000CapBnd:00000000a80425fbNoNewPrivs:0Seccomp:2\n", 2) + "micropod-init\n", "", 0},
		// cpu.max is what Go's runtime reads to know its share of the processors.
		{"no descriptors of init", change(sh("for f in /proc/1/fd/*; do readlink $f; done | grep -vE '^(/dev/null|pipe:.*|/sys/fs/cgroup/cpu.max)$'"), func(r *api.StartRequest) { r.Init = true }), "", "", 1},
		{"filter leaves root's caps", filtered(sh("grep Cap /proc/self/status | tr -d '\\t\\n '")), "CapInh:0000000000000000CapPrm:00000000a80425fbCapEff:00000000a80425fbCapBnd:00000000a80425fbCapAmb:0000000000000000", "", 0},
		{"filter leaves a user's caps", filtered(withUser("alice", "grep Cap /proc/self/status | tr -d '\\t\\n '")), "CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000CapBnd:00000000a80425fbCapAmb:0000000000000000", "", 0},
		{"call", request("/odd/unshare"), "", "", 0},
		{"filtered call", filtered(request("/odd/unshare")), "", "", 1},
		{"i386 call", request("/odd/unshare-i386"), "", "", 0},
		{"filtered i386 call", filtered(request("/odd/unshare-i386")), "", "", 1},
		{"filtered x32 call", filtered(request("/odd/unshare-x32")), "", "", 1},
		{"no descriptors", request("/bin/ls", "/proc/self/fd"), "0\n1\n2\n3\n", "", 0}, // 3 is ls itself
		{"stdin is null", sh("readlink /proc/self/fd/0; cat"), "/dev/null\n", "", 0},
		{"umask", sh("umask"), "0022\n", "", 0},
		{"hostname", change(sh("hostname; cat /etc/hostname; cat /proc/sys/kernel/domainname"), func(r *api.StartRequest) { r.Hostname, r.Domainname = "web.example.org", "dom" }), "web.example.org\nweb.example.org\ndom\n", "", 0},
		{"resolv.conf", change(sh("cat /etc/resolv.conf"), func(r *api.StartRequest) {
			r.DNS = api.DNS{Servers: []string{"192.0.2.1", "192.0.2.2"}, Search: []string{"a.example", "b.example"}, Options: []string{"ndots:2"}}
		}), "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example b.example\noptions ndots:2\n", "", 0},
		{"hosts", change(sh("tail -n 1 /etc/hosts"), func(r *api.StartRequest) {
			r.Hosts = []api.Host{{Addr: "10.0.0.2", Names: []string{"box.example.org", "box"}}}
		}), "10.0.0.2\tbox.example.org box\n", "", 0},
		{"certificates", change(sh("cat /etc/micropod/* /etc/ssl/certs/ca-certificates.crt; echo $REQUESTS_CA_BUNDLE; stat -c '%a %U' $(readlink /etc/ssl/certs/ca-certificates.crt)"), func(r *api.StartRequest) {
			r.CACertificates = "more\n"
			r.Spec.Process.Env = append(r.Spec.Process.Env, api.CAInstead)
		}), "more\nmore\nmore\n\n644 root\n", "", 0},
		{"a bundle of its own", sh("cd /etc/ssl/certs && echo its own > x && mv x ca-certificates.crt"), "", "", 0},
		{"certificates added to it", change(sh("cat /etc/ssl/certs/ca-certificates.crt; cmp $REQUESTS_CA_BUNDLE /etc/ssl/certs/ca-certificates.crt"), func(r *api.StartRequest) {
			r.CACertificates = "more\n"
			r.Spec.Process.Env = append(r.Spec.Process.Env, api.CAInstead)
		}), "its own\n\nmore\n", "", 0},
		{"no certificates", sh("cat /etc/ssl/certs/ca-certificates.crt"), "its own\n", "", 0},
		{"links became files", sh("for f in hosts hostname resolv.conf; do test -f /etc/$f -a ! -L /etc/$f || echo $f; done; readlink /etc/mtab; cat /canary/file; ls /canary"), "/proc/mounts\nuntouched\nfile\n", "", 0},
		{"modes", sh("stat -c '%a %U %n' / /proc /sys /dev"), "755 root /\n555 root /proc\n555 root /sys\n755 root /dev\n", "", 0},
		{"cgroup", sh("cat /proc/self/cgroup; touch /sys/fs/cgroup/x 2>/dev/null || echo ro"), "0::/\nro\n", "", 0},
		{"masked", sh("head -c 1 /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic"), "0\n0\n", "/bin/sh: can't create /proc/sys/kernel/panic: Read-only file system\n", 1},
		{"loopback", sh("ping -c 1 -W 5 127.0.0.1 >/dev/null && echo up"), "up\n", "", 0},
		{"setup's sysctl", sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n", "", 0},
		{"own sysctl", change(sh("cat /proc/sys/kernel/shmmni"), func(r *api.StartRequest) { r.Spec.Linux.Sysctl = map[string]string{"kernel.shmmni": "77"} }), "77\n", "", 0},
		{"limits", change(sh("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj"), func(r *api.StartRequest) {
			r.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 111}, {Type: "RLIMIT_CORE"}}
			n := 321
			r.Spec.Process.OOMScoreAdj = &n
		}), "99\n111\n0\n321\n", "", 0},
		{"open files", sh("ulimit -n; ulimit -Hn"), "1024\n524288\n", "", 0},
		{"cwd is made", change(withUser("alice", "pwd; stat -c '%a %U:%G' ."), func(r *api.StartRequest) { r.Spec.Process.Cwd = "/new/dir" }), "/new/dir\n755 root:root\n", "", 0},
		{"cwd follows links", change(request("/bin/sh", "-c", "pwd -P"), func(r *api.StartRequest) { r.Spec.Process.Cwd = "/srv/link/../x" }), "/srv/x\n", "", 0},
		{"cwd through a dangling link", change(request("/bin/sh", "-c", "pwd -P"), func(r *api.StartRequest) { r.Spec.Process.Cwd = "/srv/dangling" }), "/made/by/cwd\n", "", 0},
		{"path lookup", request("echo", "hi"), "hi\n", "", 0},
		{"relative command", change(request("./busybox", "echo", "rel"), func(r *api.StartRequest) { r.Spec.Process.Cwd = "/bin" }), "rel\n", "", 0},
		{"no shebang", request("/odd/noshebang"), "", "exec /odd/noshebang: exec format error\n", 255},
		{"bad interpreter", request("/odd/badinterp"), "", "exec /odd/badinterp: no such file or directory\n", 255},
		{"read-only", change(sh("touch /x /etc/hosts 2>&1; touch /dev/shm/y && cat /etc/hostname"), func(r *api.StartRequest) { r.Spec.Root.Readonly = true }), "touch: /x: Read-only file system\ntouch: /etc/hosts: Read-only file system\nbox\n", "", 0},
		{"tmpfs over a directory", change(sh("stat -c '%a %U' /home/alice /fresh; grep -c '/fresh tmpfs .*nosuid,nodev,noexec' /proc/mounts"), func(r *api.StartRequest) {
			opts := []string{"nosuid", "nodev", "noexec"}
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/home/alice", Type: "tmpfs", Source: "tmpfs", Options: opts},
				specs.Mount{Destination: "/fresh", Type: "tmpfs", Source: "tmpfs", Options: append(opts, "size=1m")})
		}), "755 root\n1777 root\n1\n", "", 0},
		{"many bytes", sh("head -c 3000000 /dev/zero | tr '\\0' x | tail -c 3; head -c 1000000 /dev/zero"), "xxx" + strings.Repeat("\x00", 1000000), "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vm.t = t
			r := vm.run(tt.r)
			if r.stdout != tt.stdout || r.stderr != tt.stderr || r.exit.Code != tt.code {
				t.Errorf("code %d, want %d\nstdout %.300q\n  want %.300q\nstderr %.300q\n  want %.300q", r.exit.Code, tt.code, r.stdout, tt.stdout, r.stderr, tt.stderr)
			}
		})
	}
}

// checkFailures: containers that cannot be started, by code and message.
func (vm *guestVM) checkFailures(t *testing.T) {
	cwd := func(dir string) api.StartRequest {
		return change(request("/bin/true"), func(r *api.StartRequest) { r.Spec.Process.Cwd = dir })
	}
	tests := []struct {
		name string
		r    api.StartRequest
		code api.Code
		text string
	}{
		{"not found", request("nosuch"), api.CodeNotFound, "executable file not found in $PATH"},
		{"empty word", request(""), api.CodeNotFound, "executable file not found in $PATH"},
		{"no such path", request("/no/such"), api.CodeNotFound, "no such file or directory"},
		{"not executable", request("/odd/plain"), api.CodeNotExecutable, "permission denied"},
		{"directory", request("/odd"), api.CodeNotExecutable, "is a directory"},
		{"under --init", change(request("nosuch"), func(r *api.StartRequest) { r.Init = true }), api.CodeNotFound, "not found"},
		{"no command", request(), api.CodeInvalid, "no command specified"},
		{"unknown user", withUser("bob", ""), api.CodeInvalid, "unable to find user bob"},
		{"unknown group", withUser("alice:nogroup", ""), api.CodeInvalid, "unable to find group nogroup"},
		{"uid too large", withUser("2147483648", ""), api.CodeInvalid, "range"},
		{"negative uid", withUser("-1", ""), api.CodeInvalid, "range"},
		{"cwd is a file", cwd("/canary/file"), api.CodeInvalid, "not a directory"},
		{"cwd is relative", cwd("odd"), api.CodeInvalid, "absolute"},
		{"unknown capability", change(request("/bin/true"), func(r *api.StartRequest) { r.Spec.Process.Capabilities.Bounding = []string{"CAP_NO"} }), api.CodeInvalid, "CAP_NO"},
		{"host mount", change(request("/bin/true"), func(r *api.StartRequest) {
			r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/"})
		}), api.CodeInvalid, "not supported"},
		{"bad filter", change(request("/bin/true"), func(r *api.StartRequest) { r.Seccomp = &api.Seccomp{Program: make([]byte, 8)} }), api.CodeInternal, "seccomp"},
		{"half a filter", change(request("/bin/true"), func(r *api.StartRequest) { r.Seccomp = &api.Seccomp{Program: make([]byte, 7)} }), api.CodeInvalid, "7 bytes"},
		{"bad id", change(request("/bin/true"), func(r *api.StartRequest) { r.Hostname = "a b" }), api.CodeInvalid, "host name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := vm.client.Start(vm.ctx, tt.r)
			var e *api.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.text) {
				t.Errorf("%v (%T), want %s with %q", err, err, tt.code, tt.text)
			}
		})
	}
}

func (vm *guestVM) checkStdin(t *testing.T) {
	vm.t = t
	r := change(request("/bin/cat"), func(r *api.StartRequest) { r.Stdin = true })
	s, err := vm.start(r)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("0123456789abcdef", 20000)
	go func() {
		_ = s.WriteStdin([]byte(want))
		_ = s.CloseStdin()
	}()
	if got := vm.wait(s); got.stdout != want || got.exit.Code != 0 {
		t.Errorf("%d bytes back of %d, %+v", len(got.stdout), len(want), got.exit)
	}
	// A process that never reads, fed more than a pipe holds, ends all the same.
	if s, err = vm.start(change(sh("sleep 0.5; exit 4"), func(r *api.StartRequest) { r.Stdin = true })); err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.WriteStdin([]byte(want)) }()
	if got := vm.wait(s); got.exit.Code != 4 {
		t.Errorf("%+v", got.exit)
	}
}

func (vm *guestVM) checkSignals(t *testing.T) {
	vm.t = t
	for _, init := range []bool{false, true} {
		s, err := vm.start(change(sh("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.1; done"), func(r *api.StartRequest) { r.Init = init }))
		if err != nil {
			t.Fatal(err)
		}
		if _, b, err := s.ReadFrame(); err != nil || string(b) != "ready\n" {
			t.Fatalf("%q %v", b, err)
		}
		if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 10}); err != nil {
			t.Fatal(err)
		}
		if r := vm.wait(s); r.stdout != "got\n" || r.exit.Code != 5 {
			t.Errorf("init %v: %+v", init, r)
		}
	}
	s, err := vm.start(sh("echo ready; sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	if r := vm.wait(s); r.exit.Code != 137 || r.exit.Signal != 9 || r.exit.OOMKilled {
		t.Errorf("%+v", r)
	}
	var e *api.Error
	if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 9}); !errors.As(err, &e) || e.Code != api.CodeNotFound {
		t.Errorf("signal to a dead container: %v", err)
	}
	limit := int64(16 << 20)
	r := vm.run(change(sh("x=y; while :; do x=$x$x; done"), func(r *api.StartRequest) {
		r.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	}))
	if !r.exit.OOMKilled || r.exit.Code != 137 {
		t.Errorf("out of memory: %+v", r)
	}
}

func (vm *guestVM) checkTerminal(t *testing.T) {
	for _, init := range []bool{false, true} {
		vm.t = t
		r := withUser("alice", "tty; stat -c '%a %U' $(tty); stty size; ls -la /dev/console | cut -c1; echo ready; read line; stty size; read line; echo [$line]; exit 9")
		r.Stdin, r.Init, r.Spec.Process.Terminal = true, init, true
		r.Spec.Process.ConsoleSize = &specs.Box{Width: 100, Height: 30}
		s, err := vm.start(r)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		until := func(text string) {
			t.Helper()
			for !strings.Contains(out.String(), text) {
				_, b, err := s.ReadFrame()
				if err != nil {
					t.Fatalf("%v, before %q in %q", err, text, out.String())
				}
				out.Write(b)
			}
		}
		until("ready\r\n")
		if want := "/dev/pts/0\r\n620 alice\r\n30 100\r\nc\r\nready\r\n"; out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
		if err := vm.client.Resize(vm.ctx, api.ResizeRequest{ID: "c1", Cols: 80, Rows: 25}); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteStdin([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		until("25 80\r\n")
		if err := s.WriteStdin([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
		if res := vm.wait(s); !strings.HasSuffix(res.stdout, "[line]\r\n") || res.exit.Code != 9 {
			t.Errorf("%+v", res)
		}
		// The interrupt character of a terminal reaches the command.
		r = sh("trap 'echo int; exit 6' INT; echo ready; while :; do sleep 0.1; done")
		r.Stdin, r.Init, r.Spec.Process.Terminal = true, init, true
		if s, err = vm.start(r); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		until("ready")
		if err := s.WriteStdin([]byte{3}); err != nil {
			t.Fatal(err)
		}
		if res := vm.wait(s); res.exit.Code != 6 {
			t.Errorf("interrupt with init %v: %+v", init, res)
		}
	}
}

// checkIsolation: nothing in a container reaches the agent's channel, not even with
// every device of the guest.
func (vm *guestVM) checkIsolation(t *testing.T) {
	vm.t = t
	for all, want := range map[bool]string{false: "not permitted", true: "busy"} {
		r := sh(`for p in /sys/class/virtio-ports/*; do
	grep -q micropod.agent $p/name || continue
	mknod /dev/port c $(tr : ' ' < $p/dev) && cat /dev/port
done`)
		r.AllDevices = all
		if got := vm.run(r); !strings.Contains(got.stderr, want) {
			t.Errorf("root in the container, all devices %v, opens the agent's port: %+v", all, got)
		}
	}
	r := vm.run(sh("ls -d /micropod /modules /init /newroot 2>/dev/null; grep -c . /proc/mounts >/dev/null; ls /proc/1/root/ | tr '\\n' ' '"))
	if strings.Contains(r.stdout, "micropod") || strings.Contains(r.stdout, "init") {
		t.Errorf("the guest's own root shows: %q", r.stdout)
	}
}

// checkStalled: a reader that does not read stops the container, not the agent,
// and what was written before the end is not lost.
func (vm *guestVM) checkStalled(t *testing.T) {
	vm.t = t
	s, err := vm.start(sh("yes full"))
	if err != nil {
		t.Fatal(err)
	}
	// Another container runs to its end meanwhile.
	other := change(sh("echo other"), func(r *api.StartRequest) { r.ID = "c2" })
	if r := vm.run(other); r.stdout != "other\n" || r.exit.ID != "c2" {
		t.Errorf("%+v", r)
	}
	if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	if r := vm.wait(s); r.exit.Code != 137 || len(r.stdout) < 64<<10 || !strings.HasPrefix(r.stdout, "full\nfull\n") {
		t.Errorf("%d bytes, %+v", len(r.stdout), r.exit)
	}
}

func (vm *guestVM) checkLateStdio(t *testing.T) {
	vm.t = t
	if _, err := vm.client.Start(vm.ctx, sh("echo early; exit 2")); err != nil {
		t.Fatal(err)
	}
	s, err := agent.OpenStdio(vm.ctx, vm.sock, testToken, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if r := vm.wait(s); r.stdout != "early\n" || r.exit.Code != 2 {
		t.Errorf("%+v", r)
	}
}

func (vm *guestVM) checkSecondConnection(t *testing.T) {
	vm.t = t
	if _, err := agent.Dial(vm.ctx, vm.sock, "wrong"+testToken[5:]); !errors.Is(err, agent.ErrRefused) {
		t.Errorf("wrong token: %v", err)
	}
	c, err := agent.Dial(vm.ctx, vm.sock, testToken)
	if err != nil {
		t.Fatal(err)
	}
	s, err := vm.start(sh("sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 15}); err != nil {
		t.Error(err)
	}
	if err := c.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 9}); err != nil {
		t.Error(err)
	}
	c.Close()
	if r := vm.wait(s); r.exit.Code != 137 { // pid 1 has no handler for SIGTERM
		t.Errorf("%+v", r)
	}
	if _, err := vm.client.Setup(vm.ctx, api.SetupRequest{Token: testToken, Root: api.Root{Format: "erofs", Devices: []string{"/dev/vda"}}}); err == nil {
		t.Error("a second setup works")
	}
}

func (vm *guestVM) checkShutdown(t *testing.T) {
	vm.t = t
	if _, err := vm.start(sh("sleep 1000")); err != nil {
		t.Fatal(err)
	}
	if err := vm.client.Shutdown(vm.ctx); err != nil {
		t.Fatal(err)
	}
	<-vm.machine.Done()
	if e := vm.machine.Exit(); e.Signal != 0 {
		t.Errorf("the VM ended with %+v", e)
	}
}

// The guest takes the host's clock, and leaves by itself when its supervisor
// has gone.
func TestGuestLeavesAlone(t *testing.T) {
	vm := bootVM(t, vmm.Disk{Path: testBench(t).erofs, ReadOnly: true})
	_, err := vm.client.Setup(vm.ctx, api.SetupRequest{
		Token: testToken, Now: time.Date(2033, 1, 2, 3, 4, 5, 0, time.UTC),
		Root: api.Root{Format: "erofs", Devices: []string{"/dev/vda"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := vm.run(sh("date -u +%Y-%m-%d"))
	if r.stdout != "2033-01-02\n" {
		t.Errorf("the guest's clock: %+v", r)
	}
	if d := time.Since(r.exit.At); d < 0 || d > lifeLimit {
		t.Errorf("a time of the far future is believed: %v", r.exit.At)
	}
	if _, err := vm.start(sh("sleep 1000")); err != nil {
		t.Fatal(err)
	}
	vm.client.Close()
	select {
	case <-vm.machine.Done():
	case <-vm.ctx.Done():
		t.Fatal("the guest stays")
	}
}

// The writable disk keeps what a container wrote, over two VMs and on both
// formats of image.
func TestGuestDisk(t *testing.T) {
	b := testBench(t)
	disk := filepath.Join(t.TempDir(), "rw.img")
	if err := rootfs.CreateWritable(disk, 64<<20, true); err != nil {
		t.Fatal(err)
	}
	boot := func(image, format, script string) result {
		vm := bootVM(t, vmm.Disk{Path: image, ReadOnly: true}, vmm.Disk{Path: disk})
		vm.setup(api.Root{Format: format, Devices: []string{"/dev/vda"}, Writable: "/dev/vdb"})
		r := vm.run(sh(script))
		if err := vm.client.Shutdown(vm.ctx); err != nil {
			t.Fatal(err)
		}
		<-vm.machine.Done()
		return r
	}
	boot(b.erofs, "erofs", "echo kept > /file; mv /odd/plain /odd/moved")
	run(t, tool(t, "e2fsck"), "-fn", disk)
	if r := boot(b.ext4, "ext4", "cat /file /odd/moved; ls /odd/plain"); r.stdout != "kept\nno program\n" || r.exit.Code == 0 {
		t.Errorf("%+v", r)
	}
}

// A kernel that takes no module without its signature gets the signatures.
func TestGuestSignedModules(t *testing.T) {
	vm := bootWith(t, func(c *vmm.Config) { c.Args = []string{"module.sig_enforce=1"} }, vmm.Disk{Path: testBench(t).erofs, ReadOnly: true})
	vm.setup(api.Root{Format: "erofs", Devices: []string{"/dev/vda"}})
	r := vm.run(sh("cat /sys/module/module/parameters/sig_enforce /proc/sys/kernel/tainted"))
	if r.stdout != "Y\n0\n" {
		t.Errorf("enforced and tainted: %+v", r)
	}
}

// NICs have the names of their places and what the host says, and nothing else.
func TestGuestNICs(t *testing.T) {
	nics := []api.NIC{
		{MAC: "02:42:c0:00:02:02", MTU: 1400, Address: "192.0.2.2/25", Gateway: "192.0.2.1"},
		{MAC: "02:42:c6:33:64:02", MTU: 1500, Address: "198.51.100.2/24", Address6: "2001:db8::2/64", Gateway6: "2001:db8::1"},
	}
	vm := bootWith(t, func(c *vmm.Config) {
		for _, n := range slices.Backward(nics) {
			c.NICs = append(c.NICs, vmm.NIC{MAC: n.MAC, MTU: vmm.MaxMTU})
		}
	}, vmm.Disk{Path: testBench(t).erofs, ReadOnly: true})
	_, err := vm.client.Setup(vm.ctx, api.SetupRequest{Token: testToken, Root: api.Root{Format: "erofs", Devices: []string{"/dev/vda"}}, NICs: nics})
	if err != nil {
		t.Fatal(err)
	}
	r := vm.run(sh(`for i in 0 1; do cat /sys/class/net/eth$i/address /sys/class/net/eth$i/mtu; done
ip -o addr | awk '/eth/ && !/fe80/ { print $2, $3, $4 }'
ip route | sed 's/ *$//'
ip -6 route | grep -v -e fe80 -e ff00 | sed 's/ *metric.*//'
ip addr | grep -c tentative
cat /proc/sys/net/ipv6/conf/eth1/accept_ra`))
	want := `02:42:c0:00:02:02
1400
02:42:c6:33:64:02
1500
eth0 inet 192.0.2.2/25
eth1 inet 198.51.100.2/24
eth1 inet6 2001:db8::2/64
default via 192.0.2.1 dev eth0
192.0.2.0/25 dev eth0 scope link  src 192.0.2.2
198.51.100.0/24 dev eth1 scope link  src 198.51.100.2
2001:db8::/64 dev eth1
default via 2001:db8::1 dev eth1
0
0
`
	if r.stdout != want {
		t.Errorf("got:\n%s%s, want:\n%s", r.stdout, r.stderr, want)
	}
	vm.checkNetworks(t, nics[1])
}

// checkNetworks leaves the guest one of its two devices. Its initramfs has no module for
// one more.
func (vm *guestVM) checkNetworks(t *testing.T, left api.NIC) {
	more := api.NIC{MAC: "02:42:cb:00:71:02", MTU: 1500, Address: "203.0.113.2/24"}
	var refused *api.Error
	if _, err := agent.OpenNIC(vm.ctx, vm.sock, testToken, api.NICRequest{NIC: more}); !errors.As(err, &refused) || !strings.Contains(refused.Message, "has no TAP devices (tun)") {
		t.Errorf("one more device: %v", err)
	}
	s, err := vm.start(sh(`until grep -q nameserver /etc/resolv.conf; do sleep 0.1; done
ls /sys/class/net; cat /etc/resolv.conf; grep box /etc/hosts; ip route | sed 's/ *$//'`))
	if err != nil {
		t.Fatal(err)
	}
	left.Gateway = "198.51.100.1"
	n := api.NetworksRequest{
		ID: "c1", NICs: []api.NIC{left}, DNS: api.DNS{Servers: []string{"198.51.100.1"}},
		Hosts: []api.Host{{Addr: "198.51.100.2", Names: []string{"box"}}},
	}
	bad := n
	bad.DNS.Servers = []string{"two words"}
	for _, bad := range []api.NetworksRequest{bad, {ID: "c2"}, {ID: "c1", NICs: make([]api.NIC, api.MaxNICs+1)}} {
		if err := vm.client.Networks(vm.ctx, bad); !errors.As(err, &refused) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := vm.client.Networks(vm.ctx, n); err != nil {
		t.Fatal(err)
	}
	want := `eth1
lo
nameserver 198.51.100.1
198.51.100.2	box
default via 198.51.100.1 dev eth1
198.51.100.0/24 dev eth1 scope link  src 198.51.100.2
`
	if r := vm.wait(s); r.stdout != want {
		t.Errorf("got:\n%s%s, want:\n%s", r.stdout, r.stderr, want)
	}
}

func TestGuestBadDisks(t *testing.T) {
	b := testBench(t)
	bad := filepath.Join(t.TempDir(), "bad.img")
	if err := os.WriteFile(bad, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	vm := bootVM(t, vmm.Disk{Path: b.erofs, ReadOnly: true}, vmm.Disk{Path: bad})
	_, err := vm.client.Setup(vm.ctx, api.SetupRequest{Token: testToken, Root: api.Root{Format: "erofs", Devices: []string{"/dev/vda"}, Writable: "/dev/vdb"}})
	var e *api.Error
	if !errors.As(err, &e) || e.Phase != "disk" || !strings.Contains(e.Message, "/dev/vdb") {
		t.Errorf("a disk of zeros: %v", fmt.Sprint(err))
	}
}

// BenchmarkContainer is a container's whole life in a VM that runs, and where
// the time until its command runs goes.
func BenchmarkContainer(b *testing.B) {
	vm := newVM(b)
	sums := make(map[string]time.Duration)
	for b.Loop() {
		s, err := agent.OpenStdio(vm.ctx, vm.sock, testToken, "c1")
		if err != nil {
			b.Fatal(err)
		}
		reply, err := vm.client.Start(vm.ctx, request("/bin/true"))
		if err != nil {
			b.Fatal(err)
		}
		for i, p := range reply.Phases[1:] {
			sums["to-"+p.Name] += p.At - reply.Phases[i].At
		}
		vm.wait(s)
	}
	for name, d := range sums {
		b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), name+"-ms/op")
	}
}
