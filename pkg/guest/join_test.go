package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
	profiles "github.com/micropod/micropod/pkg/seccomp"
)

// startStage starts a stage up to its answer.
func startStage(t *testing.T, r *reaper, part, root string, req api.StartRequest, target *os.File) (l *launcher, pid int, exited <-chan int, status stageStatus) {
	t.Helper()
	files, err := writeEtcFiles(t.TempDir(), req)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = newLauncher(req); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	attr := l.attr(nil)
	if target != nil {
		l.child = append(l.child, target)
		attr = l.attr(nil)
		attr.Sys.Cloneflags = 0
	}
	pid, ended, err := r.start("/proc/self/exe", []string{stageName, part}, attr)
	if err != nil {
		t.Fatal(err)
	}
	code := make(chan int, 1)
	go func() {
		c, _ := exitCode(<-ended)
		code <- c
	}()
	l.closeChild()
	if status, err = l.handshake(stageConfig{req, stagePlace{Root: root, Files: files}}, nil); err != nil {
		t.Fatal(err)
	}
	return l, pid, code, status
}

// When the command begins, in memory that it shares with its stage, no thread of
// the stage can do more than the command, or sees another root. And the stage
// itself is not in the container's pid namespace.
func TestJoinLimitsEveryThread(t *testing.T) {
	root, _ := stageRoot(t)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	r := newReaper(false)
	req := stageRequest("read x")
	req.Stdin = true
	container, pid, ended, _ := startStage(t, r, "container", root, req, nil)
	target, err := r.pidfd(pid)
	if err != nil {
		t.Fatal(err)
	}
	kill := []string{"CAP_KILL"}
	join := joinRequest(api.ExecRequest{ID: "e1", Container: "c1", Stdin: true, Process: &api.SpecProcess{
		Args: []string{"/bin/sh", "-c", "read x; exit 5"}, Cwd: "/", Env: []string{"PATH=/bin"},
		Capabilities: &specs.LinuxCapabilities{Bounding: kill, Effective: kill, Permitted: kill},
	}}, defaultFilter(t, kill))
	l, stage, left, status := startStage(t, r, "exec", root, join, target)
	for _, p := range []string{strconv.Itoa(stage), strconv.Itoa(status.PID)} {
		checkThreads(t, p, strconv.Itoa(pid), len(inits()) == 2)
	}
	mine, theirs := link(t, "/proc/self/ns/pid"), link(t, "/proc/"+strconv.Itoa(pid)+"/ns/pid")
	if got := link(t, "/proc/"+strconv.Itoa(stage)+"/ns/pid"); got != mine {
		t.Errorf("the stage is in %s, not in %s", got, mine)
	}
	if got := link(t, "/proc/"+strconv.Itoa(status.PID)+"/ns/pid"); got != theirs {
		t.Errorf("the command is in %s, not in %s", got, theirs)
	}
	exited := r.adopt(status.PID)
	l.socket.Close()
	if code := <-left; code != 0 {
		t.Errorf("the stage ended with %d", code)
	}
	r.settle(status.PID)
	l.stdin.Close()
	if code, _ := exitCode(<-exited); code != 5 {
		t.Errorf("code %d", code)
	}
	container.stdin.Close()
	<-ended
}

// defaultFilter is docker's default profile for a process with these capabilities.
func defaultFilter(t *testing.T, caps []string) *api.Seccomp {
	t.Helper()
	f, err := profiles.Default().Filter(profiles.Target{Capabilities: caps})
	if err != nil {
		t.Fatal(err)
	}
	return &api.Seccomp{Flags: f.Flags, Program: f.Program}
}

// checkThreads looks at each thread of pid, or at one where all was not possible.
func checkThreads(t *testing.T, pid, container string, all bool) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + pid + "/task/*")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %s: %v", pid, err)
	}
	limited, seen, theirs := 0, 0, link(t, "/proc/"+container+"/ns/mnt")
	for _, task := range tasks {
		b, err := os.ReadFile(task + "/status")
		root, rootErr := os.Readlink(task + "/ns/mnt")
		if err := errors.Join(err, rootErr); err != nil {
			if _, gone := os.Stat(task); errors.Is(gone, fs.ErrNotExist) {
				continue // it ended while we looked
			}
			t.Fatal(err)
		}
		seen++
		inside := root == theirs
		if strings.Contains(string(b), "CapEff:\t0000000000000020\n") && strings.Contains(string(b), "CapPrm:\t0000000000000020\n") && inside {
			limited++
		}
	}
	if limited == 0 || all && limited < seen {
		t.Errorf("%d of the %d threads of %s are limited", limited, seen, pid)
	}
}

func link(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
