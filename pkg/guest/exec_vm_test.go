package guest_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
)

// execRequest is an exec as docker would make it, in the container c1.
func execRequest(args ...string) api.ExecRequest {
	return api.ExecRequest{ID: "e1", Container: "c1", Process: defaultSpec(args...).Process}
}

func shExec(script string) api.ExecRequest { return execRequest("/bin/sh", "-c", script) }

func changeExec(r api.ExecRequest, f func(*api.ExecRequest)) api.ExecRequest {
	f(&r)
	return r
}

func execAs(user, script string) api.ExecRequest {
	return changeExec(shExec(script), func(r *api.ExecRequest) { r.User = user })
}

func (vm *guestVM) startExec(r api.ExecRequest) (*agent.Stdio, error) {
	vm.t.Helper()
	stdio, err := agent.OpenStdio(vm.ctx, vm.sock, testToken, r.ID)
	if err != nil {
		vm.t.Fatal(err)
	}
	vm.t.Cleanup(func() { stdio.Close() })
	if _, err = vm.client.Exec(vm.ctx, r); err != nil {
		stdio.Close()
	}
	return stdio, err
}

func (vm *guestVM) runExec(r api.ExecRequest) result {
	vm.t.Helper()
	s, err := vm.startExec(r)
	if err != nil {
		vm.t.Fatal(err)
	}
	return vm.wait(s)
}

// killContainer ends the container c1, whose streams are s.
func (vm *guestVM) killContainer(s *agent.Stdio) result {
	vm.t.Helper()
	if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 9}); err != nil {
		vm.t.Fatal(err)
	}
	return vm.wait(s)
}

// TestExec joins processes to one container, one after another.
func TestExec(t *testing.T) {
	vm := newVM(t)
	for _, init := range []bool{false, true} {
		r := sh("mkdir -p /kept; echo 1 > /kept/mark; for n in pid mnt ipc uts cgroup net; do readlink /proc/self/ns/$n; done > /kept/ns; echo ready; while :; do sleep 1000; done")
		r.Init = init
		r.Hostname, r.CACertificates = "joined", "more\n"
		s, err := vm.start(filtered(r))
		if err != nil {
			t.Fatal(err)
		}
		if _, b, err := s.ReadFrame(); err != nil || string(b) != "ready\n" {
			t.Fatalf("%q %v", b, err)
		}
		for _, c := range []struct {
			name  string
			check func(*testing.T)
		}{
			{"output", vm.execOutput}, {"failures", vm.execFailures}, {"stdin", vm.execStdin}, {"terminal", vm.execTerminal},
			{"signals", vm.execSignals}, {"unattended", vm.execUnattended}, {"privilege", vm.execPrivilege},
		} {
			t.Run(fmt.Sprintf("%s init=%v", c.name, init), func(t *testing.T) {
				vm.t = t
				c.check(t)
			})
		}
		if !init {
			t.Run("many", func(t *testing.T) { vm.t = t; vm.execMany(t) })
		}
		vm.t = t
		if r := vm.killContainer(s); r.exit.Code != 137 {
			t.Errorf("%+v", r)
		}
	}
	t.Run("hostile", func(t *testing.T) { vm.t = t; vm.execHostile(t) })
	t.Run("processes", func(t *testing.T) { vm.t = t; vm.listProcesses(t) })
	t.Run("freeze", func(t *testing.T) { vm.t = t; vm.freezeContainer(t) })
	t.Run("end of the container", func(t *testing.T) { vm.t = t; vm.execEnd(t) })
}

func (vm *guestVM) execOutput(t *testing.T) {
	tests := []struct {
		name           string
		r              api.ExecRequest
		stdout, stderr string
		code           int
	}{
		{"apart", shExec("echo out; echo err >&2; exit 7"), "out\n", "err\n", 7},
		{"killed", shExec("kill -9 $$"), "", "", 137},
		{"namespaces", shExec("for n in pid mnt ipc uts cgroup net; do readlink /proc/self/ns/$n; done | cmp - /kept/ns; hostname; cat /kept/mark"), "joined\n1\n", "", 0},
		{"container's filter", shExec("grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f 2; unshare -m true"), "00000000a80425fb\n0\n2\n", "unshare: unshare(0x20000): Operation not permitted\n", 1},
		{"filter of a user's process", execAs("alice", "grep -E '^(CapPrm|Seccomp):' /proc/self/status | cut -f 2"), "0000000000000000\n2\n", "", 0},
		{"filter of a privileged process", changeExec(shExec("grep Seccomp: /proc/self/status | cut -f 2"), func(r *api.ExecRequest) { r.Privileged = true }), "2\n", "", 0},
		{"own session", shExec("test $(ps -o pid,pgid,sid | grep -w $$ | head -n 1 | tr -s ' ' '\\n' | sort -u | grep -c .) = 1 && echo $PPID"), "0\n", "", 0},
		{"child holds stdout", shExec("sleep 1000 & echo gone"), "gone\n", "", 0},
		{"root", shExec("id; echo $HOME; pwd"), "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n/root\n/\n", "", 0},
		{"name", execAs("alice", "id; echo $HOME"), "uid=1000(alice) gid=1000(alice) groups=29(audio),44(video),1000(alice)\n/home/alice\n", "", 0},
		{"unknown uid", execAs("31337:9", "id -u; id -g; id -G; echo $HOME"), "31337\n9\n9\n/\n", "", 0},
		{"user of the present files", shExec("echo late:x:77:78::/late: >> /etc/passwd"), "", "", 0},
		{"user that is new", execAs("late", "id -u; id -g; echo $HOME"), "77\n78\n/late\n", "", 0},
		{"group add", changeExec(execAs("alice:alice", "id -G"), func(r *api.ExecRequest) { r.GroupAdd = []string{"video", "77"} }), "1000 44 77\n", "", 0},
		{"user reopens stdout", execAs("alice", "echo a > /dev/stdout; echo b > /dev/stderr"), "a\n", "b\n", 0},
		{"caps of root", shExec("grep Cap /proc/self/status | tr -d '\\t\\n '"), "CapInh:0000000000000000CapPrm:00000000a80425fbCapEff:00000000a80425fbCapBnd:00000000a80425fbCapAmb:0000000000000000", "", 0},
		{"caps of a user", execAs("alice", "grep Cap /proc/self/status | tr -d '\\t\\n '"), "CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000CapBnd:00000000a80425fbCapAmb:0000000000000000", "", 0},
		{"no new privileges", changeExec(shExec("grep NoNewPrivs /proc/self/status"), func(r *api.ExecRequest) { r.Process.NoNewPrivileges = true }), "NoNewPrivs:\t1\n", "", 0},
		{"no descriptors", execRequest("/bin/ls", "/proc/self/fd"), "0\n1\n2\n3\n", "", 0}, // 3 is ls itself
		{"stdin is null", shExec("readlink /proc/self/fd/0; cat"), "/dev/null\n", "", 0},
		{"umask", shExec("umask"), "0022\n", "", 0},
		{"cgroup", shExec("cat /proc/self/cgroup; grep -c . /sys/fs/cgroup/cgroup.procs > /dev/null && grep -qx $$ /sys/fs/cgroup/cgroup.procs && echo in"), "0::/\nin\n", "", 0},
		{"limits", changeExec(shExec("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj"), func(r *api.ExecRequest) {
			r.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 111}}
			n := 321
			r.Process.OOMScoreAdj = &n
		}), "99\n111\n321\n", "", 0},
		{"cwd", changeExec(shExec("pwd"), func(r *api.ExecRequest) { r.Process.Cwd = "/kept" }), "/kept\n", "", 0},
		{"env", changeExec(shExec("echo $A $HOME"), func(r *api.ExecRequest) { r.Process.Env = append(r.Process.Env, "A=b c", "HOME=/h") }), "b c /h\n", "", 0},
		{"certificates", changeExec(shExec("cat /etc/ssl/certs/ca-certificates.crt; echo $REQUESTS_CA_BUNDLE"), func(r *api.ExecRequest) { r.Process.Env = append(r.Process.Env, api.CAInstead) }), "more\n\n", "", 0},
		{"path lookup", execRequest("echo", "hi"), "hi\n", "", 0},
		{"no shebang", execRequest("/odd/noshebang"), "", "exec /odd/noshebang: exec format error\n", 255},
		{"bad interpreter", execRequest("/odd/badinterp"), "", "exec /odd/badinterp: no such file or directory\n", 255},
		{"signals are default", shExec("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\t\\n'"), "SigBlk:0000000000000000SigIgn:0000000000000000", "", 0},
		{"many bytes", shExec("head -c 1000000 /dev/zero"), strings.Repeat("\x00", 1000000), "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vm.t = t
			r := vm.runExec(tt.r)
			if r.stdout != tt.stdout || r.stderr != tt.stderr || r.exit.Code != tt.code || r.exit.ID != "e1" {
				t.Errorf("code %d, want %d\nstdout %.300q\n  want %.300q\nstderr %.300q\n  want %.300q", r.exit.Code, tt.code, r.stdout, tt.stdout, r.stderr, tt.stderr)
			}
		})
	}
}

func (vm *guestVM) execFailures(t *testing.T) {
	cwd := func(dir string) api.ExecRequest {
		return changeExec(execRequest("/bin/true"), func(r *api.ExecRequest) { r.Process.Cwd = dir })
	}
	tests := []struct {
		name string
		r    api.ExecRequest
		code api.Code
		text string
	}{
		{"not found", execRequest("nosuch"), api.CodeNotFound, "executable file not found in $PATH"},
		{"no such path", execRequest("/no/such"), api.CodeNotFound, "no such file or directory"},
		{"not executable", execRequest("/odd/plain"), api.CodeNotExecutable, "permission denied"},
		{"directory", execRequest("/odd"), api.CodeNotExecutable, "is a directory"},
		{"no command", execRequest(), api.CodeInvalid, "no command specified"},
		{"no process", api.ExecRequest{ID: "e1", Container: "c1"}, api.CodeInvalid, "no process"},
		{"unknown user", execAs("bob", ""), api.CodeInvalid, "unable to find user bob"},
		{"no cwd", cwd("/none"), api.CodeNotFound, "no such file or directory"},
		{"cwd is a file", cwd("/canary/file"), api.CodeNotFound, "not a directory"},
		{"cwd is relative", cwd("odd"), api.CodeInvalid, "absolute"},
		{"cwd of the stage", cwd("/proc/self/fd/3"), api.CodeNotFound, "no such file"},
		{"unknown limit", changeExec(execRequest("/bin/true"), func(r *api.ExecRequest) {
			r.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NO"}}
		}), api.CodeInvalid, "RLIMIT_NO"},
		{"no such container", changeExec(execRequest("/bin/true"), func(r *api.ExecRequest) { r.Container = "c9" }), api.CodeConflict, "container c9 is not running"},
		{"id of the container", changeExec(execRequest("/bin/true"), func(r *api.ExecRequest) { r.ID = "c1" }), api.CodeInvalid, "runs already"},
		{"bad id", changeExec(execRequest("/bin/true"), func(r *api.ExecRequest) { r.Container = "../c1" }), api.CodeInvalid, "bad character"},
		{"NUL", execRequest("/bin/true", "a\x00b"), api.CodeInvalid, "NUL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := vm.client.Exec(vm.ctx, tt.r)
			var e *api.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.text) {
				t.Errorf("%v (%T), want %s with %q", err, err, tt.code, tt.text)
			}
		})
	}
	if _, err := vm.client.Start(vm.ctx, request("/bin/true")); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("start of a container that runs: %v", err)
	}
}

func (vm *guestVM) execStdin(t *testing.T) {
	cat := changeExec(execRequest("/bin/cat"), func(r *api.ExecRequest) { r.Stdin = true })
	s, err := vm.startExec(cat)
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
}

func (vm *guestVM) execTerminal(t *testing.T) {
	r := execAs("alice", "test -c $(tty) && stat -c '%a %U' $(tty); echo x > /dev/tty; stty size; echo ready; read line; stty size; read line; echo [$line]; exit 9")
	r.Stdin, r.Process.Terminal = true, true
	r.Process.ConsoleSize = &specs.Box{Width: 100, Height: 30}
	s, err := vm.startExec(r)
	if err != nil {
		t.Fatal(err)
	}
	out := vm.until(s, "", "ready\r\n")
	if want := "620 alice\r\nx\r\n30 100\r\nready\r\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	if err := vm.client.Resize(vm.ctx, api.ResizeRequest{ID: "e1", Cols: 80, Rows: 25}); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteStdin([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	vm.until(s, "", "25 80\r\n")
	if err := s.WriteStdin([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	if res := vm.wait(s); !strings.HasSuffix(res.stdout, "[line]\r\n") || res.exit.Code != 9 {
		t.Errorf("%+v", res)
	}
	// The interrupt character reaches the command; a child that holds the
	// terminal does not hold the end up.
	r = shExec("trap '' HUP; sleep 1000 & trap 'echo int; exit 6' INT; echo ready; while :; do sleep 0.1; done")
	r.Stdin, r.Process.Terminal = true, true
	if s, err = vm.startExec(r); err != nil {
		t.Fatal(err)
	}
	vm.until(s, "", "ready")
	if err := s.WriteStdin([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if res := vm.wait(s); res.exit.Code != 6 || !strings.Contains(res.stdout, "int") {
		t.Errorf("interrupt: %+v", res)
	}
}

// until reads output up to a text, and returns all of it.
func (vm *guestVM) until(s *agent.Stdio, so, text string) string {
	vm.t.Helper()
	for !strings.Contains(so, text) {
		_, b, err := s.ReadFrame()
		if err != nil {
			vm.t.Fatalf("%v, before %q in %q", err, text, so)
		}
		so += string(b)
	}
	return so
}

func (vm *guestVM) execSignals(t *testing.T) {
	s, err := vm.startExec(shExec("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.1; done"))
	if err != nil {
		t.Fatal(err)
	}
	vm.until(s, "", "ready\n")
	if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: "e1", Signal: 10}); err != nil {
		t.Fatal(err)
	}
	if r := vm.wait(s); r.stdout != "got\n" || r.exit.Code != 5 {
		t.Errorf("%+v", r)
	}
}

// execMany runs as many at once as the guest allows, and one more.
func (vm *guestVM) execMany(t *testing.T) {
	const most = 128
	for i := range most {
		r := changeExec(shExec("read x"), func(r *api.ExecRequest) { r.ID, r.Stdin, r.Detach = fmt.Sprintf("many-%d", i), true, true })
		if _, err := vm.client.Exec(vm.ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vm.client.Exec(vm.ctx, execRequest("/bin/true")); err == nil || !strings.Contains(err.Error(), "no more are possible") {
		t.Errorf("one more: %v", err)
	}
	for i := range most {
		if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: fmt.Sprintf("many-%d", i), Signal: 9}); err != nil {
			t.Fatal(err)
		}
	}
	for range most {
		if e := <-vm.client.Exits(); !strings.HasPrefix(e.ID, "many-") || e.Code != 137 {
			t.Errorf("%+v", e)
		}
	}
	if r := vm.runExec(shExec("ps | grep -c 'read [x]'; ls /sys/fs/cgroup/cgroup.procs > /dev/null; wc -l < /sys/fs/cgroup/cgroup.procs")); !strings.HasPrefix(r.stdout, "0\n") {
		t.Errorf("left: %+v", r)
	}
}

// execUnattended: the process goes on when its client is gone, also one that
// nobody ever reads, and what it prints holds nothing up.
func (vm *guestVM) execUnattended(t *testing.T) {
	own, err := agent.Dial(vm.ctx, vm.sock, testToken)
	if err != nil {
		t.Fatal(err)
	}
	s, err := agent.OpenStdio(vm.ctx, vm.sock, testToken, "left")
	if err != nil {
		t.Fatal(err)
	}
	r := changeExec(shExec("rm -f /kept/left; echo begun; read x; head -c 300000 /dev/zero; echo done > /kept/left"), func(r *api.ExecRequest) { r.ID, r.Stdin = "left", true })
	if _, err := own.Exec(vm.ctx, r); err != nil {
		t.Fatal(err)
	}
	vm.until(s, "", "begun\n")
	if err := s.WriteStdin([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	vm.until(s, "", "\x00")
	s.Close()
	own.Close()
	wait := "until test -e /kept/left; do sleep 0.1; done; cat /kept/left; rm /kept/left"
	if r := vm.runExec(shExec(wait)); r.stdout != "done\n" {
		t.Errorf("%+v", r)
	}
	detached := changeExec(shExec("head -c 300000 /dev/zero; echo detached > /kept/left"), func(r *api.ExecRequest) { r.ID, r.Detach = "e2", true })
	if _, err := vm.client.Exec(vm.ctx, detached); err != nil {
		t.Fatal(err)
	}
	if e := <-vm.client.Exits(); e.ID != "e2" || e.Code != 0 {
		t.Errorf("%+v", e)
	}
	if r := vm.runExec(shExec(wait)); r.stdout != "detached\n" {
		t.Errorf("%+v", r)
	}
}

// execPrivilege: all capabilities on demand, and even they write no byte of the
// agent's program, which is on a file system that is read-only (CVE-2019-5736).
func (vm *guestVM) execPrivilege(t *testing.T) {
	r := shExec("grep CapEff /proc/self/status | cut -f2; echo x > /proc/1/exe")
	r.Privileged = true
	got := vm.runExec(r)
	eff, _, _ := strings.Cut(got.stdout, "\n")
	if !strings.HasSuffix(eff, "ffffffff") {
		t.Errorf("effective capabilities %q", eff)
	}
	if init := vm.runExec(shExec("cat /proc/1/comm")).stdout == "micropod-init\n"; init && !strings.Contains(got.stderr, "Read-only file system") {
		t.Errorf("write to the agent: %+v", got)
	}
	// A program of the container that makes the kernel execute the agent there.
	vm.runExec(shExec("printf '#!/proc/self/exe\\n' > /kept/self; chmod 755 /kept/self"))
	if got := vm.runExec(execRequest("/kept/self")); got.exit.Code != 1 || !strings.Contains(got.stderr, "does nothing here") {
		t.Errorf("the agent as interpreter: %+v", got)
	}
	if got := vm.runExec(shExec("true")); got.exit.Code != 0 {
		t.Errorf("afterwards: %+v", got)
	}
}

// execHostile: a container that has broken what an exec uses, or breaks it
// meanwhile, gets errors, not hangs and not other files.
func (vm *guestVM) execHostile(t *testing.T) {
	r := sh("cp /etc/passwd /passwd; while read -r line; do eval \"$line\"; echo ok; done")
	r.Stdin = true
	s, err := vm.start(r)
	if err != nil {
		t.Fatal(err)
	}
	does := func(command string) {
		t.Helper()
		if err := s.WriteStdin([]byte(command + "\n")); err != nil {
			t.Fatal(err)
		}
		vm.until(s, "", "ok\n")
	}
	tests := []struct {
		breaks, repairs, text string
		tty                   bool
	}{
		{"rm /etc/passwd; mkfifo /etc/passwd", "rm /etc/passwd; cp /passwd /etc/passwd", "not a regular file", false},
		{"rm /etc/passwd; ln -s /dev/zero /etc/passwd", "rm /etc/passwd; cp /passwd /etc/passwd", "not a regular file", false},
		{"rm /etc/passwd; head -c 9000000 /dev/zero > /etc/passwd", "cp /passwd /etc/passwd", "token too long", false},
		{"rm /etc/passwd; mkdir /etc/passwd", "rmdir /etc/passwd; cp /passwd /etc/passwd", "not a regular file", false},
		{"mv /dev/null /dev/was; mkfifo /dev/null", "mv /dev/was /dev/null", "something else at /dev/null", false},
		{"mv /dev/null /dev/was; ln -s zero /dev/null", "mv /dev/was /dev/null", "too many levels of symbolic links", false},
		{"mv /dev/null /dev/was", "mv /dev/was /dev/null", "no such file", false},
		{"chmod 0 /dev/pts", "chmod 755 /dev/pts", "", true},
	}
	for _, tt := range tests {
		does(tt.breaks)
		e := execRequest("/bin/true")
		e.Process.Terminal = tt.tty
		got, err := vm.startExec(e)
		if tt.text == "" && err == nil {
			vm.wait(got)
		}
		if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %q", tt.breaks, err, tt.text)
		}
		does(tt.repairs)
		if r := vm.runExec(execRequest("/bin/true")); r.exit.Code != 0 {
			t.Errorf("after %s: %+v", tt.repairs, r)
		}
	}
	does("(while :; do for f in /passwd /fifo /none /dev/zero; do ln -snf $f /etc/passwd; done; done) & mkfifo /fifo")
	for range 12 {
		if got, err := vm.startExec(execRequest("/bin/true")); err == nil {
			vm.wait(got)
		} else if !strings.Contains(err.Error(), "passwd") {
			t.Error(err)
		}
	}
	does("kill $!; wait $!; rm -f /etc/passwd; cp /passwd /etc/passwd") // the disk outlives the container
	vm.killContainer(s)
}

// listProcesses: more than one reply holds, with names that a parser may fall for.
func (vm *guestVM) listProcesses(t *testing.T) {
	const many = 40
	long := strings.Repeat("x", 3000)
	s, err := vm.start(sh("printf '#!/bin/sh\\nsleep 1000; true\\n' > '/a) R 1 1'; chmod 755 /a*; '/a) R 1 1' & for i in $(seq 40); do sh -c 'echo; sleep 1000; true' " + long + " & done; sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	for lines := 0; lines < many; {
		_, b, err := s.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(b), "\n")
	}
	if r := vm.runExec(execAs("alice", "sleep 900 & exec /bin/true")); r.exit.Code != 0 {
		t.Errorf("%+v", r)
	}
	want := map[string]int{"long": many, "odd": 1, "alice": 1}
	found := vm.processesOf(long)
	for end := time.Now().Add(time.Minute); !maps.Equal(found, want) && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond) // until all have executed their command
		found = vm.processesOf(long)
	}
	if !maps.Equal(found, want) {
		t.Errorf("%v, want %v", found, want)
	}
	if _, err := vm.client.Processes(vm.ctx, "nosuch"); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("processes of nothing: %v", err)
	}
	vm.killContainer(s)
}

// processesOf counts the processes of listProcesses.
func (vm *guestVM) processesOf(long string) map[string]int {
	vm.t.Helper()
	processes, err := vm.client.Processes(vm.ctx, "c1")
	if err != nil {
		vm.t.Fatal(err)
	}
	found := map[string]int{}
	for _, p := range processes {
		switch {
		case strings.HasSuffix(p.Command, long):
			found["long"]++
		case p.Command == "/bin/sh /a) R 1 1" && p.TTY == "?" && p.PPID > 1:
			found["odd"]++
		case p.UID == 1000 && p.Command == "sleep 900":
			found["alice"]++
		}
		if d := time.Since(p.Started); d < -time.Minute || d > lifeLimit {
			vm.t.Errorf("%d started %v ago", p.PID, d)
		}
	}
	return found
}

// freezeContainer: what is frozen stands, is killed all the same, and is not joined.
func (vm *guestVM) freezeContainer(t *testing.T) {
	for _, thaw := range []bool{true, false} {
		s, err := vm.start(sh("echo ready; sleep 0.2; echo on; sleep 1000"))
		if err != nil {
			t.Fatal(err)
		}
		vm.until(s, "", "ready\n")
		for range 2 { // the second changes nothing
			if err := vm.client.Freeze(vm.ctx, api.FreezeRequest{ID: "c1", Frozen: true}); err != nil {
				t.Fatal(err)
			}
		}
		var e *api.Error
		if _, err := vm.client.Exec(vm.ctx, execRequest("/bin/true")); !errors.As(err, &e) || e.Code != api.CodeConflict || !strings.Contains(e.Message, "paused") {
			t.Errorf("exec in a frozen container: %v", err)
		}
		if processes, err := vm.client.Processes(vm.ctx, "c1"); err != nil || len(processes) == 0 {
			t.Errorf("%v, %v", processes, err)
		}
		if thaw {
			if err := vm.client.Freeze(vm.ctx, api.FreezeRequest{ID: "c1"}); err != nil {
				t.Fatal(err)
			}
			vm.until(s, "", "on\n")
		}
		if r := vm.killContainer(s); r.exit.Code != 137 {
			t.Errorf("%+v", r)
		}
	}
	if err := vm.client.Freeze(vm.ctx, api.FreezeRequest{ID: "c1", Frozen: true}); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("freeze of nothing: %v", err)
	}
}

// execEnd: with the container its joined processes end, and their clients hear it.
func (vm *guestVM) execEnd(t *testing.T) {
	s, err := vm.start(sh("echo ready; sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	vm.until(s, "", "ready\n")
	e, err := vm.startExec(shExec("echo in; sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	vm.until(e, "", "in\n")
	if err := vm.client.Signal(vm.ctx, api.SignalRequest{ID: "c1", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	ends := map[string]int{}
	for range 2 {
		x := <-vm.client.Exits()
		ends[x.ID] = x.Code
	}
	if ends["c1"] != 137 || ends["e1"] != 137 {
		t.Errorf("%v", ends)
	}
	for {
		if _, _, err := e.ReadFrame(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vm.client.Exec(vm.ctx, execRequest("/bin/true")); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("exec in a container that has ended: %v", err)
	}
}
