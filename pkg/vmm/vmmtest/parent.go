package vmmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

// childEnv makes this test binary start one VM and wait to be killed.
const childEnv = "MICROPOD_VMMTEST_CHILD"

// child is what the process that will be killed does.
func (s *suite) child(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c vmm.Config
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	m, err := s.new(t).Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Dial("unix", path+".sock")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(l, "%d\n", m.PID())
	<-m.Done()
}

// testParentDeath: the VMM dies with the process that started it, even by
// SIGKILL, and has inherited none of its descriptors.
func (s *suite) testParentDeath(t *testing.T) {
	s.killParent(t, s.config(t, wire.ModeSilent), func() {})
}

// killParent has another process start c, and kills that. It calls whileUp in
// between.
func (s *suite) killParent(t *testing.T, c vmm.Config, whileUp func()) {
	t.Helper()
	path := filepath.Join(filepath.Dir(c.VsockPath), "child")
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path+".sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	etc, err := os.Open("/etc")
	if err != nil {
		t.Fatal(err)
	}
	defer etc.Close()

	name, _, _ := strings.Cut(t.Name(), "/")
	parent := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	parent.Env = append(os.Environ(), childEnv+"="+path)
	// Inherited by the child, not by the VMM; so many that the VMM's own do not
	// replace them all.
	parent.ExtraFiles = slices.Repeat([]*os.File{etc}, 40)
	out := new(strings.Builder)
	parent.Stdout, parent.Stderr = out, out
	parent.WaitDelay = time.Second
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		parent.Wait()
		l.Close()
		close(ended)
	}()
	var pid int
	conn, err := l.Accept()
	if err == nil {
		_, err = fmt.Fscan(conn, &pid)
		conn.Close()
	}
	if err != nil {
		parent.Process.Kill()
		<-ended
		t.Fatalf("%v: %s", err, out)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, d := range descriptors(t, pid) {
		if d.target == "/etc" {
			t.Error("the VMM has inherited a descriptor of /etc")
		}
	}
	whileUp()
	parent.Process.Kill()
	<-ended
	awaitDeath(t, fd, pid)
	s.cleanUp(t, c)
}

// awaitDeath waits for the end of a process; one that lives on is killed.
func awaitDeath(t *testing.T, pidfd, pid int) {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("the VMM lives on: %d, %v", n, err)
		}
		return
	}
}

// cleanUp frees what a VM left whose process was killed, and once more.
func (s *suite) cleanUp(t *testing.T, c vmm.Config) {
	t.Helper()
	d, ok := s.new(t).(vmm.Cleaner)
	if !ok {
		return
	}
	for range 2 {
		if err := d.Clean(c.ID, c.Dir); err != nil {
			t.Errorf("clean: %v", err)
		}
	}
}
