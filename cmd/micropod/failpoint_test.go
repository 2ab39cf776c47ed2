package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

// sweep is a root in which one process after the other dies at a fail point.
type sweep struct {
	t     *testing.T
	bin   string
	root  string
	image string
	hits  string   // file
	swept []string // what was armed
}

// death is one scenario: a command, run with each of its points armed in turn.
type death struct {
	name   string
	points []string
	// prepare makes what the command needs; nil is nothing.
	prepare func(s *sweep)
	command []string
	// then is a command after it, for a supervisor that has come so far.
	then []string
	// after looks at what is special, before everything is removed.
	after func(s *sweep, point string)
	// mend takes away what is left where a list of containers does not.
	mend []string
	// inSupervisor: it is not the command that dies, whatever the point is called.
	inSupervisor bool
	// keeps the container for the next point.
	keeps bool
	// clean demands that nothing is left over from the beginning: the supervisor
	// lives, and does all of it.
	clean bool
}

// TestFailpoints kills the command, the supervisor or the VMM at every fail point
// that the program lists, and looks each time whether what comes next works: the
// list of containers, their removal, a check of what is left over with its
// repair. That the image can be run again shows in the next scenario, and at the
// end. What boots no VM goes first.
func TestFailpoints(t *testing.T) {
	kernel, images := os.Getenv("MICROPOD_TEST_KERNEL"), os.Getenv("MICROPOD_TEST_IMAGES")
	if kernel == "" || images == "" {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES must name a guest kernel and an OCI layout")
		}
		t.Skip("MICROPOD_TEST_KERNEL and MICROPOD_TEST_IMAGES do not name a guest kernel and an OCI layout (make test does)")
	}
	bin := filepath.Join(t.TempDir(), "micropod")
	if out, err := exec.Command("go", "build", "-tags", "failpoint", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with fail points: %v\n%s", err, out)
	}
	image := startRegistry(t, images) + "/busybox:latest"
	template := templateRoot(t, bin, kernel, strings.TrimSuffix(image, "/busybox:latest"))
	want := listedPoints(t, bin)
	got := make(chan []string, len(deaths()))
	t.Run("group", func(t *testing.T) {
		for name, list := range deaths() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSweep(t, bin, template, image)
				for _, d := range list {
					s.run(d)
				}
				s.ok("run", "--rm", image, "true")
				s.settled()
				got <- s.swept
			})
		}
	})
	close(got)
	if len(got) < len(deaths()) {
		return // -run picked some, or one has failed
	}
	var swept []string
	for list := range got {
		swept = append(swept, list...)
	}
	for _, p := range want {
		if !slices.Contains(swept, p) {
			t.Errorf("no scenario kills at %s", p)
		}
	}
	for _, p := range swept {
		if point, _, _ := strings.Cut(p, ":"); !slices.Contains(want, point) {
			t.Errorf("%s is not in the program's list", p)
		}
	}
}

// TestNoFailpoints: in what users run there are none.
func TestNoFailpoints(t *testing.T) {
	b, err := os.ReadFile(programUnderTest(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"MICROPOD_FAIL" + "POINT", "supervisor." + "born"} {
		if bytes.Contains(b, []byte(text)) {
			t.Errorf("the program holds %s", text)
		}
	}
}

func listedPoints(t *testing.T, bin string) []string {
	t.Helper()
	out, err := exec.Command(bin, "failpoints").Output()
	if err != nil {
		t.Fatalf("list fail points: %v", err)
	}
	// Those of bridge networks are swept by the tests of pkg/network/bridge, those of
	// Firecracker by TestFirecrackerFailpoints.
	points := slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool {
		return strings.HasPrefix(p, "bridge.") || strings.HasPrefix(p, "firecracker.")
	})
	if len(points) < 40 {
		t.Fatalf("only %d fail points are listed", len(points))
	}
	return points
}

// deaths are the scenarios, by groups that run side by side.
func deaths() map[string][]death {
	return map[string][]death{"images": imageDeaths(), "starts": startDeaths(), "ends": endDeaths(), "vmms": vmmDeaths(), "files": fileDeaths(), "networks": networkDeaths()}
}

// imageDeaths boot nothing.
func imageDeaths() []death {
	noImage := func(s *sweep) { s.command("rmi", "-f", s.image) }
	withImage := func(s *sweep) { s.ok("pull", "-q", s.image) }
	created := func(s *sweep) { s.ok("create", "--name", "box", s.image, "true") }
	repair := []string{"system", "check", "--repair"}
	return []death{
		{name: "pull", prepare: noImage, command: []string{"pull", "-q", "IMAGE"}, mend: []string{"pull", "-q", "IMAGE"},
			points: []string{"pull.leased", "rootfs.written", "rootfs.named", "pull.layers", "state.written", "pull.documents", "state.written:3", "pull.recorded"}},
		{name: "rmi", prepare: withImage, command: []string{"rmi", "IMAGE"}, mend: []string{"image", "prune", "-f"},
			points: []string{"rmi.recorded", "rootfs.moved", "rootfs.unlocked"}},
		{name: "create", prepare: withImage, command: []string{"create", "--name", "box", "IMAGE", "true"}, mend: []string{"create", "IMAGE", "true"},
			points: []string{"create.held", "create.made", "create.locked", "create.described", "create.disk", "create.named",
				"state.written", "state.written:2", "create.recorded"}},
		{name: "rm", prepare: created, command: []string{"rm", "box"}, mend: []string{"create", "IMAGE", "true"},
			points: []string{"rm.locked", "rm.hidden", "rm.recorded"}},
		{name: "network", command: []string{"network", "create", "net"}, mend: repair, points: []string{"state.written", "networks.written"}},
		{name: "start", prepare: created, command: []string{"start", "box"}, points: []string{"start.locked"}},
		{name: "initramfs", command: []string{"start", "box"}, points: []string{"initramfs.written"}, mend: repair,
			prepare: func(s *sweep) {
				created(s)
				if err := os.RemoveAll(filepath.Join(s.root, "initramfs")); err != nil {
					s.t.Fatal(err)
				}
			}},
		{name: "disk", prepare: func(s *sweep) { noImage(s); withImage(s); created(s) }, command: []string{"start", "box"}, mend: repair,
			points: []string{"rootfs.written", "rootfs.named"}},
		// The bridge of root's default network is there by then.
		{name: "start with a network", prepare: created, command: []string{"start", "box"}, mend: repair,
			points: []string{"start.planned", "spawn.started"}},
		{name: "late start", prepare: created, command: []string{"start", "box"}, points: []string{
			"supervisor.born", "supervisor.listening", "supervisor.recorded", "supervisor.awaiting", "qemu.listening", "qemu.spawned",
		}},
	}
}

// startDeaths boot a VM, or begin to.
func startDeaths() []death {
	return []death{
		{name: "supervisor", command: []string{"run", "--name", "box", "IMAGE", "true"}, points: []string{
			"supervisor.vmm", "supervisor.known", "supervisor.booted", "supervisor.setup", "supervisor.started", "supervisor.running", "supervisor.up",
		}},
		{name: "template", inSupervisor: true, prepare: templateDue, command: []string{"run", "--name", "box", "IMAGE", "true"},
			points: []string{"template.made", "template.named"}},
		{name: "lost while running, and its reaper", prepare: loseSupervisor, command: []string{"ps", "-a"}, points: []string{"reap.freed"}},
	}
}

// endDeaths are of what ends and works on VMs.
func endDeaths() []death {
	running := func(s *sweep) {
		if s.command("inspect", "box") != nil {
			s.ok("run", "-d", "--name", "box", s.image, "sleep", "1000")
		}
	}
	return []death{
		{name: "command", command: []string{"run", "-d", "--name", "box", "IMAGE", "sleep", "1000"},
			points: []string{"spawn.planned", "start.reported"}, after: stillRuns},
		{name: "supervisor", command: []string{"run", "--name", "box", "IMAGE", "true"}, points: []string{
			"supervisor.exited", "supervisor.flushed", "supervisor.killed", "supervisor.freed", "supervisor.settled",
		}},
		{name: "supervisor that removes", inSupervisor: true, command: []string{"run", "--rm", "--name", "box", "IMAGE", "true"},
			points: []string{"rm.recorded"}, mend: []string{"run", "IMAGE", "true"}}, // its files and its address are left
		{name: "exec", prepare: running, command: []string{"exec", "box", "sleep", "1000"},
			points: []string{"exec.dialled", "exec.streams", "exec.started"}, after: stillRuns, keeps: true},
		{name: "stop", prepare: running, command: []string{"stop", "-t", "0", "box"}, points: []string{"stop.sent", "stop.ended"}, after: ends},
		{name: "rm -f", prepare: running, command: []string{"rm", "-f", "box"}, points: []string{"rm.killed"}, after: ends},
	}
}

// networkDeaths connect a container that runs, and disconnect it.
func networkDeaths() []death {
	made := func(s *sweep) {
		if s.command("network", "inspect", "net") != nil {
			s.ok("network", "create", "net")
		}
	}
	run := []string{"run", "-d", "--name", "box", "--network", "net", "IMAGE", "sleep", "1000"}
	return []death{
		{name: "connect", inSupervisor: true, prepare: made, command: run, then: []string{"network", "connect", "user", "box"},
			points: []string{"connect.recorded", "connect.linked", "connect.wired", "connect.told"}},
		{name: "disconnect", inSupervisor: true, prepare: made, command: run, then: []string{"network", "disconnect", "net", "box"},
			points: []string{"disconnect.recorded", "disconnect.left"}},
	}
}

// fileDeaths copy files into a container, whether it runs or not.
func fileDeaths() []death {
	stopped := func(s *sweep) { s.ok("create", "--name", "box", s.image, "true") }
	running := func(s *sweep) { s.ok("run", "-d", "--name", "box", s.image, "sleep", "1000") }
	command := []string{"cp", "/etc/hostname", "box:/tmp"}
	// A copy that follows finds the container as if nothing had been.
	again := func(s *sweep, _ string) { s.ok(command...) }
	return []death{
		{name: "cp", prepare: stopped, command: command, after: again, points: []string{
			"files.locked", "service.recorded", "service.up", "files.served", "files.sent", "service.flushed", "service.freed",
		}},
		{name: "cp into one that runs", prepare: running, command: command, points: []string{"files.sent"}, after: stillRuns},
	}
}

// vmmDeaths leave the supervisor alive, and so nothing to repair.
func vmmDeaths() []death {
	var points []string
	for _, p := range []string{"vmm", "known", "booted", "setup", "started", "running", "up", "exited"} {
		points = append(points, "supervisor."+p+"=vmm")
	}
	return []death{{name: "vmm", command: []string{"run", "--name", "box", "IMAGE", "sh", "-c", "sleep 1"}, points: points, after: ends, clean: true}}
}

// stillRuns demands that the container goes on, whoever has died.
func stillRuns(s *sweep, _ string) {
	s.becomes("box running")
	s.ok("exec", "box", "true")
}

// ends demands that the container ends.
func ends(s *sweep, _ string) { s.becomes("box exited") }

// templateDue makes the next start one that makes a template.
func templateDue(s *sweep) {
	s.ok("run", "--rm", s.image, "true")
	made, err := filepath.Glob(filepath.Join(s.root, "templates", "*.state"))
	for _, path := range made {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// loseSupervisor leaves a container whose supervisor was killed.
func loseSupervisor(s *sweep) {
	s.ok("run", "-d", "--name", "box", s.image, "sleep", "1000")
	pid := strings.TrimSpace(s.ok("inspect", "-f", "{{.MicroPod.SupervisorPid}}", "box"))
	if out, err := exec.Command("kill", "-9", pid).CombinedOutput(); err != nil {
		s.t.Fatalf("kill the supervisor: %v\n%s", err, out)
	}
	locks, err := filepath.Glob(filepath.Join(s.root, "vms", "*", "alive"))
	if err != nil || len(locks) != 1 {
		s.t.Fatalf("locks of containers: %v, %v", locks, err)
	}
	if !eventually(waitLimit, func() bool { held, err := state.Held(locks[0]); return err == nil && !held }) {
		s.t.Fatal("a dead supervisor holds its lock")
	}
}

func newSweep(t *testing.T, bin, template, image string) *sweep {
	t.Helper()
	root, err := newRoot(template)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endRoot(t, bin, root) })
	return &sweep{t: t, bin: bin, root: root, image: image, hits: filepath.Join(t.TempDir(), "hits")}
}

// run lets somebody die at each of a scenario's points.
func (s *sweep) run(d death) {
	for _, point := range d.points {
		if d.prepare != nil {
			d.prepare(s)
		}
		s.dies(d, point)
		if d.after != nil {
			d.after(s, point)
		}
		s.recovers(d)
		s.swept = append(s.swept, point)
	}
}

// words puts the image's name into a command.
func (s *sweep) words(command []string) []string {
	args := slices.Clone(command)
	if i := slices.Index(args, "IMAGE"); i >= 0 {
		args[i] = s.image
	}
	return args
}

// dies runs a command with a point armed, and demands that it was hit.
func (s *sweep) dies(d death, point string) {
	s.t.Helper()
	cmd := exec.Command(s.bin, append([]string{"--root", s.root}, s.words(d.command)...)...)
	cmd.Env = append(os.Environ(), "MICROPOD_FAILPOINT="+point, "MICROPOD_FAILPOINT_HITS="+s.hits)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s: %v", d.name, err)
	}
	if d.then != nil {
		s.command(d.then...) // whose supervisor dies
	}
	// The supervisor may come to it when the command has ended.
	if !eventually(waitLimit, func() bool { b, _ := os.ReadFile(s.hits); return strings.HasPrefix(string(b), point+"\n") }) {
		s.t.Fatalf("%s: %s was not hit: %v\n%s", d.name, point, err, out)
	}
	if err := os.Remove(s.hits); err != nil {
		s.t.Fatal(err)
	}
	ours := !d.inSupervisor && !strings.HasPrefix(point, "supervisor.") && !strings.HasPrefix(point, "service.") && !strings.HasPrefix(point, "qemu.")
	if killed := exit != nil && exit.Sys().(syscall.WaitStatus).Signaled(); killed != ours {
		s.t.Errorf("%s: at %s the command ended with %v\n%s", d.name, point, err, out)
	}
	// A process that is killed gives its locks up a moment later.
	if !ours && !eventually(waitLimit, func() bool { return s.ok("ps", "-q") == "" }) {
		s.t.Errorf("%s: after %s the container runs", d.name, point)
	}
}

// recovers demands that ordinary commands work, and that they, or the scenario's
// way to mend it, leave nothing over.
func (s *sweep) recovers(d death) {
	s.t.Helper()
	if d.clean {
		checkRoot(s.t, s.bin, s.root)
	}
	s.ok("ps", "-a")
	s.ok("images")
	if d.mend != nil {
		s.removeAll()
		s.ok(s.words(d.mend)...)
	}
	s.settled()
	if !d.keeps {
		s.removeAll()
		s.settled()
	}
}

func (s *sweep) removeAll() {
	s.t.Helper()
	if refs := strings.Fields(s.ok("ps", "-aq")); len(refs) > 0 {
		s.ok(append([]string{"rm", "-f"}, refs...)...)
	}
}

// settled demands that nothing is left over: no process but those of containers.
func (s *sweep) settled() {
	s.t.Helper()
	checkRoot(s.t, s.bin, s.root)
	if s.ok("ps", "-q") != "" {
		return
	}
	if !eventually(leftLimit, func() bool { return len(processesOf(s.root)) == 0 }) {
		s.t.Errorf("left behind: %v", processesOf(s.root))
	}
}

// becomes waits until the one container is in a state: "NAME STATE".
func (s *sweep) becomes(want string) {
	s.t.Helper()
	got := ""
	if !eventually(waitLimit, func() bool {
		got = strings.TrimSpace(s.ok("ps", "-a", "--format", "{{.Name}} {{.State}}"))
		return got == want
	}) {
		s.t.Fatalf("the container is %q, not %q", got, want)
	}
}

// failure is a command that failed, with what it said.
type failure struct {
	text string
	err  error
}

// command runs one with nothing armed; nil is success.
func (s *sweep) command(args ...string) *failure {
	out, err := exec.Command(s.bin, append([]string{"--root", s.root}, args...)...).CombinedOutput()
	if err == nil {
		return nil
	}
	return &failure{string(out), err}
}

// ok runs a command that must work, and returns its output.
func (s *sweep) ok(args ...string) string {
	s.t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(s.bin, append([]string{"--root", s.root}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%v: %v\n%s%s", args, err, out, stderr.String())
	}
	return string(out)
}
