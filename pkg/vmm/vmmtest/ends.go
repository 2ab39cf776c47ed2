package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// testSharedDisk: two VMs at once read one disk.
func (s *suite) testSharedDisk(t *testing.T) {
	disk := makeDisk(t, t.TempDir(), 0)
	want := fileSum(t, disk)
	var all []*vm
	for range 2 {
		c := s.config(t, wire.ModeServe)
		c.Disks = []vmm.Disk{{Path: disk, ReadOnly: true}}
		all = append(all, s.boot(t, c))
	}
	if all[0].PID() == all[1].PID() {
		t.Errorf("both have PID %d", all[0].PID())
	}
	for i, v := range all {
		if got := v.do(t, "sum /dev/vda"); got != want {
			t.Errorf("VM %d reads %s, want %s", i, got, want)
		}
	}
	all[0].Kill()
	if got := all[1].do(t, "sum /dev/vda"); got != want {
		t.Errorf("after the end of the other, the VM reads %s, want %s", got, want)
	}
}

// testCPUs: as many as asked for, even more than the host has.
func (s *suite) testCPUs(t *testing.T) {
	c := s.config(t, wire.ModeServe)
	c.CPUs = 3
	c.MemoryMiB = 200
	if got := s.boot(t, c).do(t, "cpus"); got != "0-2" {
		t.Errorf("the guest has CPUs %s, want 0-2", got)
	}
}

// flood is more than a pipe and the console log hold, and no more than that: each
// byte is an exit to the VMM, which takes an emulated KVM a millisecond.
const flood = 96 << 10

// testConsole: a guest that floods its console fills neither the disk nor any
// memory, and goes on.
func (s *suite) testConsole(t *testing.T) {
	c := s.config(t, wire.ModeServe)
	c.ConsoleLimit = 4 << 10
	if err := os.WriteFile(c.ConsolePath, []byte("of an earlier boot"), 0o644); err != nil {
		t.Fatal(err)
	}
	v := s.boot(t, c)
	if got := v.do(t, "console %d", flood); got != "" {
		t.Errorf("the guest's write: %q", got)
	}
	v.do(t, "reboot")
	v.ended(t)
	info, err := os.Stat(c.ConsolePath)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != c.ConsoleLimit || info.Mode().Perm() != 0o600 {
		t.Errorf("console log: %d bytes, mode %v; want %d", info.Size(), info.Mode(), c.ConsoleLimit)
	}
}

// testReboot: a guest that reboots ends the VM, and the end is clean.
func (s *suite) testReboot(t *testing.T) {
	files := openFiles(t)
	v := s.start(t, s.config(t, wire.ModeReboot))
	pid := v.PID()
	if e := v.ended(t); e != (vmm.Exit{}) {
		t.Errorf("exit %+v, want a clean one", e)
	}
	if err := v.Kill(); err != nil {
		t.Errorf("kill after the end: %v", err)
	}
	nothingLeft(t, v.c, files)
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d afterwards: %v", pid, err)
	}
}

// testPanic: the VM ends, and the console says why.
func (s *suite) testPanic(t *testing.T) {
	v := s.start(t, s.config(t, wire.ModePanic))
	v.ended(t)
	if log := console(v.c); !strings.Contains(log, "Kernel panic") {
		t.Errorf("console log:\n%s", log)
	}
}

// testSilent: a guest that never answers leaves connections open, not
// answered, and can be killed.
func (s *suite) testSilent(t *testing.T) {
	files := openFiles(t)
	v := s.start(t, s.config(t, wire.ModeSilent))
	group, err := syscall.Getpgid(v.PID())
	if err != nil || group == syscall.Getpgrp() {
		t.Errorf("process group %d, %v: a Ctrl-C would reach the VMM", group, err)
	}
	gone, err := net.Dial("unix", v.c.VsockPath) // a client that gives up
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(gone, "CONNECT %d\n", wire.PortEcho)
	gone.Close()
	result := make(chan error, 1)
	go func() {
		_, err := v.dial(wire.PortEcho)
		result <- err
	}()
	kills := make(chan error, 2)
	for range 2 {
		go func() { kills <- v.Kill() }()
	}
	for range 2 {
		if err := <-kills; err != nil {
			t.Errorf("kill: %v", err)
		}
	}
	select {
	case <-v.Done():
	default:
		t.Error("Kill has returned before Done")
	}
	if err := <-result; err == nil {
		t.Error("a connection to a guest that does not listen is answered")
	}
	if e := v.Exit(); e.Code != -1 || e.Signal != int(syscall.SIGKILL) || e.Reason == "" {
		t.Errorf("exit %+v", e)
	}
	nothingLeft(t, v.c, files)
}

// testBadStarts: an error, and nothing left behind.
func (s *suite) testBadStarts(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no kernel ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*vmm.Config){
		"no kernel":          func(c *vmm.Config) { c.Kernel = "/nonexistent/vmlinux" },
		"kernel is none":     func(c *vmm.Config) { c.Kernel = garbage },
		"no initramfs":       func(c *vmm.Config) { c.Initrd = "/nonexistent/initramfs" },
		"no disk":            func(c *vmm.Config) { c.Disks = []vmm.Disk{{Path: "/nonexistent/disk"}} },
		"disk is a folder":   func(c *vmm.Config) { c.Disks = []vmm.Disk{{Path: c.Dir, ReadOnly: true}} },
		"no folder for log":  func(c *vmm.Config) { c.ConsolePath = "/nonexistent/console" },
		"no folder for sock": func(c *vmm.Config) { c.VsockPath = "/nonexistent/v.sock" },
		"long socket path":   func(c *vmm.Config) { c.VsockPath += strings.Repeat("x", 200) },
		"no vCPU":            func(c *vmm.Config) { c.CPUs = 0 },
		"too little memory":  func(c *vmm.Config) { c.MemoryMiB = 1 },
		"argument of words":  func(c *vmm.Config) { c.Args = []string{"a b"} },
		"argument quoted":    func(c *vmm.Config) { c.Args = []string{`a"b`} },
		"endless arguments":  func(c *vmm.Config) { c.Args = []string{strings.Repeat("a", 5000)} },
		"id with a slash":    func(c *vmm.Config) { c.ID = "../../../../etc" },
	} {
		t.Run(name, func(t *testing.T) {
			files := openFiles(t)
			c := s.config(t, wire.ModeServe)
			change(&c)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			m, err := s.new(t).Start(ctx, c)
			if err == nil {
				m.Kill()
				t.Fatal("it starts")
			}
			if ctx.Err() != nil {
				t.Errorf("no answer in time: %v", err)
			}
			t.Log(err)
			nothingLeft(t, c, files)
		})
	}
}

func (s *suite) testCanceled(t *testing.T) {
	files := openFiles(t)
	c := s.config(t, wire.ModeServe)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if m, err := s.new(t).Start(ctx, c); err == nil {
		m.Kill()
		t.Error("it starts")
	} else if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nothingLeft(t, c, files)
}

// nothingLeft checks that a VM is gone: its processes, sockets, files and
// descriptors.
func nothingLeft(t *testing.T, c vmm.Config, before int) {
	t.Helper()
	if _, err := os.Lstat(c.VsockPath); err == nil {
		t.Error("the socket is left")
	}
	if left, err := os.ReadDir(c.Dir); err != nil || len(left) > 0 {
		t.Errorf("left in the driver's directory: %v, %v", left, err)
	}
	for _, child := range children(t) {
		if strings.Contains(child, c.ID) || strings.Contains(child, c.Dir) {
			t.Errorf("process left: %s", child)
		}
	}
	if now := openFiles(t); now > before {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// children lists the command lines of this process's children.
func children(t *testing.T) []string {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(b)) {
			cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			all = append(all, pid+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return all
}
