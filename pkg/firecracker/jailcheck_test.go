package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// rootOnPaper makes d believe that it may make jails.
func rootOnPaper(t *testing.T, d *Driver) {
	t.Helper()
	d.host.root = true
	d.host.capabilities = func() (uint64, error) { return 1<<unix.CAP_LAST_CAP - 1, nil }
	d.host.etc, d.host.proc = t.TempDir(), t.TempDir()
	d.o.Guard = []string{"/proc/self/exe", guardVerb}
	if err := os.Mkdir(filepath.Join(d.host.proc, "self"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"uid_map": "0 0 4294967295\n", "gid_map": "0 0 4294967295\n",
		"mountinfo": "1 1 0:1 / " + t.TempDir() + " rw - cgroup cgroup rw,cpu,memory,pids\n",
	} {
		writeFile(t, filepath.Join(d.host.proc, "self", name), text)
	}
}

// TestProbeSaysHowVMsAreKept: the wall of this caller, and what it lacks.
func TestProbeSaysHowVMsAreKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the programs of others are not trusted")
	}
	const other = "turn the jailer off with --jailer=false"
	for _, tt := range []struct {
		name        string
		change      func(*Driver)
		ok          bool
		reason, fix string
	}{
		{"root", func(*Driver) {}, true, "are usable; each VMM in a jail with a user of its own (1900000000-1900065535)", ""},
		{"a user", func(d *Driver) { d.host.root = false }, true,
			"are usable; no jailer without root: VMMs run as this user, behind seccomp filters, without cgroup limits", ""},
		{"no jailer wanted", func(d *Driver) { d.o.NoJail = true }, true, "are usable; the jailer is off: VMMs run as root, behind seccomp filters", ""},
		{"fewer controllers", func(d *Driver) {
			writeFile(t, d.host.proc+"/self/mountinfo", "1 1 0:1 / "+t.TempDir()+" rw - cgroup cgroup rw,memory\n")
		}, true,
			"without limits that this host has no cgroup controller for: cpu, pids", ""},
		{"no way to cgroups", func(d *Driver) {
			writeFile(t, d.host.proc+"/self/mountinfo", "1 1 0:1 / /none rw - cgroup cgroup rw,cpu\n")
		}, false,
			"cgroups for jails: make cgroups in /none: no such file", other},
		{"no guard", func(d *Driver) { d.o.Guard = nil }, false, "no guard", other},
		{"no jailer", func(d *Driver) { d.o.Jailer = "/none/jailer" }, false, "jailer not available, which root needs: looked for /none/jailer",
			"run scripts/download-firecracker.sh, or " + other},
		{"another release", func(d *Driver) { d.o.Jailer = fakeBinary(t, "v1.16.0") }, false,
			"jailer is version 1.16.0, firecracker 1.16.1: they must be of the same release", "run scripts/download-firecracker.sh, or " + other},
		{"a development build", func(d *Driver) { d.o.Jailer = fakeBinary(t, "v1.16.1-dev") }, false, "jailer is version 1.16.1-dev", other},
		{"no version", func(d *Driver) { d.o.Jailer = fakeBinary(t, "garbage") }, false, "not a Firecracker version", "scripts/download-firecracker.sh"},
		{"bad ids", func(d *Driver) { d.o.JailIDs = IDRange{0, 5} }, false, "root in it", "choose another range with --jail-ids, or " + other},
		{"ids of somebody", func(d *Driver) { writeFile(t, d.host.etc+"/passwd", "eve:x:1900000007:1::/:/bin/sh\n") }, false, "belongs to eve", "--jail-ids"},
		{"ids out of the namespace", func(d *Driver) { writeFile(t, d.host.proc+"/self/gid_map", "0 100000 65536\n") }, false, "user namespace", "--jail-ids"},
		{"a tame root", func(d *Driver) {
			d.host.capabilities = func() (uint64, error) {
				return 1<<unix.CAP_LAST_CAP - 1 - 1<<unix.CAP_SYS_ADMIN - 1<<unix.CAP_MKNOD, nil
			}
		}, false, "it lacks CAP_SYS_ADMIN, CAP_MKNOD", other},
		{"a jailer of others", func(d *Driver) { d.o.Jailer = writableProgram(t) }, false, "others can write", other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, "v1.16.1")
			rootOnPaper(t, d)
			d.o.Jailer = fakeBinary(t, "v1.16.1")
			tt.change(d)
			a := d.Probe(context.Background())
			if a.OK != tt.ok || !strings.Contains(a.Reason, tt.reason) || !strings.Contains(a.Fix, tt.fix) || (tt.fix == "") != (a.Fix == "") {
				t.Errorf("%+v", a)
			}
			if tt.ok || strings.HasPrefix(tt.reason, "jailer is version") { // see TestJailerOfAnotherRelease
				return
			}
			// What the probe refuses, a start refuses, and leaves nothing.
			c := setup(t)
			_, err := d.Start(context.Background(), c)
			if !errors.Is(err, vmm.ErrUnavailable) {
				t.Errorf("start: %v", err)
			}
			if got := names(t, c); got != before {
				t.Errorf("afterwards there are: %s", got)
			}
		})
	}
}

// TestJailerOfAnotherRelease: Firecracker gets no VM from a jailer that is not
// its own.
func TestJailerOfAnotherRelease(t *testing.T) {
	d := jailDriver(t)
	own, err := d.lookupJailer(d.o.Binary)
	if err != nil {
		t.Fatal(err)
	}
	d.o.Jailer = filepath.Join(t.TempDir(), "jailer")
	script := "#!/bin/sh\nif [ \"$1\" = --version ]; then echo Jailer v1.11.0; else exec " + own + " \"$@\"; fi\n"
	if err := os.WriteFile(d.o.Jailer, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	c := setup(t)
	_, err = d.Start(context.Background(), c)
	if !errors.Is(err, vmm.ErrUnavailable) || !strings.Contains(err.Error(), "wait for the API: jailer is version 1.11.0") {
		t.Errorf("start: %v", err)
	}
	if got := names(t, c); got != before {
		t.Errorf("afterwards there are: %s", got)
	}
}

// TestJailCancelled: a start that is cancelled while the jailer is asked says
// nothing of the jailer.
func TestJailCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := setup(t)
	_, err := jailDriver(t).Start(ctx, c)
	if !errors.Is(err, context.Canceled) || errors.Is(err, vmm.ErrUnavailable) {
		t.Errorf("start: %v", err)
	}
	if got := names(t, c); got != before {
		t.Errorf("afterwards there are: %s", got)
	}
}

// writableProgram is one that anybody could replace.
func writableProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jailer")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestJailerIsFound: beside firecracker first, then on PATH.
func TestJailerIsFound(t *testing.T) {
	beside, onPath := t.TempDir(), t.TempDir()
	t.Setenv("PATH", onPath)
	d := New(Options{})
	binary := filepath.Join(beside, "firecracker")
	if _, err := d.lookupJailer(binary); err == nil || !strings.Contains(err.Error(), filepath.Join(beside, "jailer")+" and on PATH for jailer") {
		t.Errorf("nowhere: %v", err)
	}
	for _, dir := range []string{onPath, beside} {
		want := filepath.Join(dir, "jailer")
		if err := os.WriteFile(want, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := d.lookupJailer(binary); got != want || err != nil {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}

func TestCheckTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root owns what root trusts")
	}
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := checkTrusted(dir); err != nil {
		t.Errorf("a good one: %v", err) // /tmp itself is open to all, and sticky
	}
	parent := filepath.Dir(dir)
	for mode, want := range map[os.FileMode]string{0o775: "others can write", 0o757: "others can write", 0o777 | os.ModeSticky: "", 0o755: ""} {
		if err := os.Chmod(parent, mode); err != nil {
			t.Fatal(err)
		}
		if err := checkTrusted(dir); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("parent with %v: %v", mode, err)
		}
	}
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	// Of the last one in the path, sticky keeps nobody from adding to it.
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if err := checkTrusted(dir); err == nil {
		t.Error("a directory that everybody may fill")
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := checkTrusted(link); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: %v", err)
	}
}

// TestIsHidden: only a closed directory of root's keeps everybody else out.
func TestIsHidden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives directories away")
	}
	top, err := os.MkdirTemp("", "fchidden")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	file := filepath.Join(top, "a", "file")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "")
	link := filepath.Join(t.TempDir(), "link") // its own directory does not count
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode  os.FileMode
		owner int
		want  bool
	}{{0o700, 0, true}, {0o755, 0, false}, {0o711, 0, false}, {0o710, 0, false}, {0o700, 1234, false}} {
		if err := errors.Join(os.Chmod(top, tt.mode), os.Chown(top, tt.owner, 0)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{file, link} {
			if got, err := isHidden(path); got != tt.want || err != nil {
				t.Errorf("%s below %04o of %d: %v, %v", path, tt.mode, tt.owner, got, err)
			}
		}
	}
}

// TestGuardRefuses: a guard that cannot do its work says why, and starts nothing.
func TestGuardRefuses(t *testing.T) {
	d := jailDriver(t)
	for name, tt := range map[string]struct {
		change func(*jail)
		want   string
	}{
		"no jailer":    {func(j *jail) { j.jailer = "/none/jailer" }, "start /none/jailer: no such file"},
		"no such bind": {func(j *jail) { j.binds = []bind{{"/none", j.root, true}} }, "bind /none: no such file"},
		"no cgroup": {func(j *jail) {
			j.cgroups.in = []hierarchy{{mount: "/none"}}
		}, "enter cgroup: open /none/micropod/abcdef012345/cgroup.procs"},
		"no guard":    {func(j *jail) { j.guard = []string{"/none/guard"} }, "start the guard: "},
		"other guard": {func(j *jail) { j.guard = []string{"/bin/true"} }, "the guard ended before firecracker started"},
		"bad jailer":  {func(j *jail) { j.jailer = "/bin/false" }, "ended before it answered: exit code 1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := setup(t)
			m, err := d.prepare(context.Background(), c)
			if err != nil {
				t.Fatal(err)
			}
			var id int
			for _, step := range []func(context.Context) error{m.openConsole, m.buildJail, m.openLog} {
				if err := step(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			id = m.jail.id()
			kept := m.jail.cgroups
			tt.change(m.jail)
			if err = m.startProcess(context.Background()); err == nil {
				err = m.explain(m.waitReady(context.Background()))
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			m.jail.cgroups = kept
			m.abandon()
			checkFreed(t, d, c, id)
		})
	}
}
