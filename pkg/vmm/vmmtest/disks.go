package vmmtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

const (
	manyDisks = 12
	sector    = 512
)

// makeDisk writes a raw disk of some sectors that no other disk resembles.
func makeDisk(t *testing.T, dir string, n int) string {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf("disk,%d.img", n)) // a comma is a trap of QEMU's
	var b bytes.Buffer
	fmt.Fprintf(&b, "disk number %d\n", n)
	io.CopyN(&b, wire.Pattern(), int64(8+n)*sector-int64(b.Len()))
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// limits hold no test up, and are limits all the same.
func limits() vmm.DiskLimits {
	return vmm.DiskLimits{ReadBytes: 64 << 20, WriteBytes: 32 << 20, ReadOps: 10000, WriteOps: 5000}
}

// testDisks: order, content, and who may write what, with limits and without.
func (s *suite) testDisks(t *testing.T) {
	c := s.config(t, wire.ModeServe)
	dir := filepath.Dir(c.VsockPath)
	for i := range manyDisks {
		d := vmm.Disk{Path: makeDisk(t, dir, i), ReadOnly: i%3 != 2}
		if i%2 == 1 {
			d.Limits = limits()
		}
		c.Disks = append(c.Disks, d)
	}
	v := s.boot(t, c)

	got := strings.Fields(v.do(t, "disks"))
	if len(got) != manyDisks {
		t.Fatalf("the guest sees %v", got)
	}
	for i, d := range c.Disks {
		name := "vd" + string(rune('a'+i))
		ro := "0"
		if d.ReadOnly {
			ro = "1"
		}
		if want := name + ":" + strconv.Itoa(8+i) + ":" + ro; got[i] != want {
			t.Errorf("disk %d: the guest sees %s, want %s", i, got[i], want)
		}
		if got, want := v.do(t, "sum /dev/%s", name), fileSum(t, d.Path); got != want {
			t.Errorf("disk %d: the guest reads %s, want %s", i, got, want)
		}
	}
	t.Run("descriptors", func(t *testing.T) { checkDescriptors(t, v.PID(), c.Disks) })
	for i, d := range c.Disks {
		before := fileSum(t, d.Path)
		// The header of a format that a VMM might recognize.
		answer := v.do(t, "write /dev/vd%c QFI\xfb", 'a'+i)
		after := fileSum(t, d.Path)
		switch {
		case d.ReadOnly && (after != before || answer == ""):
			t.Errorf("read-only disk %d: the guest's write: %q, changed: %v", i, answer, after != before)
		case !d.ReadOnly && (after == before || answer != ""):
			t.Errorf("writable disk %d: the guest's write: %q, changed: %v", i, answer, after != before)
		}
	}
	v.do(t, "reboot")
	v.ended(t)
	for i, d := range c.Disks {
		if b, err := os.ReadFile(d.Path); err != nil || len(b) != (8+i)*sector {
			t.Errorf("disk %d: %d bytes afterwards, %v", i, len(b), err)
		}
	}
}

// checkDescriptors looks into the VMM: a read-only disk is opened O_RDONLY.
func checkDescriptors(t *testing.T, pid int, disks []vmm.Disk) {
	open := descriptors(t, pid)
	for i, d := range disks {
		disk, err := os.Stat(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, fd := range open {
			// A VMM with a root directory of its own has another path to it.
			if !os.SameFile(fd.file, disk) {
				continue
			}
			found = true
			if writable := fd.flags&(os.O_WRONLY|os.O_RDWR) != 0; writable == d.ReadOnly {
				t.Errorf("disk %d: read-only %v, but the VMM's descriptor has flags %#o", i, d.ReadOnly, fd.flags)
			}
		}
		if !found {
			t.Errorf("disk %d: no descriptor of the VMM", i)
		}
	}
}

type descriptor struct {
	number int
	target string
	file   os.FileInfo
	flags  int
}

func descriptors(t *testing.T, pid int) []descriptor {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	entries, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	var all []descriptor
	for _, e := range entries {
		target, err := os.Readlink(dir + "fd/" + e.Name())
		if err != nil {
			continue // closed since
		}
		file, err := os.Stat(dir + "fd/" + e.Name())
		if err != nil {
			continue
		}
		info, err := os.ReadFile(dir + "fdinfo/" + e.Name())
		if err != nil {
			continue
		}
		d := descriptor{target: target, file: file}
		d.number, _ = strconv.Atoi(e.Name())
		for line := range strings.Lines(string(info)) {
			fmt.Sscanf(line, "flags: %o", &d.flags)
		}
		all = append(all, d)
	}
	return all
}
