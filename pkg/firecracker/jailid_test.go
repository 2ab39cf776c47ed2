package firecracker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseIDRange(t *testing.T) {
	for text, want := range map[string]string{
		"1900000000-1900065535": "", "1-65533": "", "65535-4294967294": "", "7-7": "",
		"": "want FIRST-LAST", "7": "want FIRST-LAST", "7-": "want FIRST-LAST", "a-b": "want FIRST-LAST", "-1-7": "want FIRST-LAST",
		"1-4294967296": "want FIRST-LAST", "1 -7": "want FIRST-LAST", "8-7": "is empty", "0-7": "root", "65000-66000": "nobody",
		"4000000000-4294967295": "stands for no id",
	} {
		r, err := ParseIDRange(text)
		switch {
		case want == "" && (err != nil || r.String() != text):
			t.Errorf("%q: %v, %v", text, r, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if err := DefaultJailIDs().check(); err != nil {
		t.Error(err)
	}
}

func TestTakenIDs(t *testing.T) {
	etc := t.TempDir()
	r := IDRange{1000, 1999}
	if err := r.taken(etc); err != nil {
		t.Errorf("without files: %v", err)
	}
	for _, tt := range []struct{ file, line, owner string }{
		{"passwd", "alice:x:1500:100::/home/alice:/bin/sh", "alice"},
		{"passwd", "first:x:1000:100::/:/bin/sh", "first"},
		{"passwd", "last:x:1999:100::/:/bin/sh", "last"},
		{"passwd", "low:x:999:1500::/:/bin/sh", ""},
		{"passwd", "high:x:2000:100::/:/bin/sh", ""},
		{"passwd", "broken:x", ""},
		{"group", "staff:x:1500:", "staff"},
		{"subuid", "alice:100000:65536", ""},
		{"subuid", "bob:1:1000", "bob"},
		{"subuid", "bob:1:999", ""},
		{"subgid", "bob:1999:1", "bob"},
		{"subgid", "bob:500:65536", "bob"},
	} {
		path := filepath.Join(etc, tt.file)
		writeFile(t, path, "root:x:0:0::/root:/bin/sh\n"+tt.line+"\n")
		err := r.taken(etc)
		if (err == nil) != (tt.owner == "") || err != nil && !strings.Contains(err.Error(), " "+tt.owner+" ("+path) {
			t.Errorf("%s: %s: %v", tt.file, tt.line, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMappedIDs(t *testing.T) {
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "self"), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{
		"         0          0 4294967295\n":   true,
		"         0     100000      65536\n":   true,
		"0 100000 1999\n":                      false,
		"0 100000 1000\n1000 200000 1000\n":    true,
		"0 100000 1000\n1000 200000 999\n":     false,
		"0 1 1500\n1500 5000 65536\n":          false,
		"not a map\n         1000 1000 1000\n": true,
		"":                                     false,
	} {
		for _, name := range []string{"uid_map", "gid_map"} {
			writeFile(t, filepath.Join(proc, "self", name), text)
		}
		if err := (IDRange{1000, 1999}).mapped(proc); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLeases(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "ids")
	r := IDRange{1900000000, 1900000004}
	held := map[uint32]*idLease{}
	for i := range 5 {
		l, err := leaseID(dir, r, fmt.Sprint("vm", i%2)) // equal VMs begin at one place
		if err != nil {
			t.Fatal(err)
		}
		if !r.has(uint64(l.id)) || held[l.id] != nil {
			t.Errorf("got %d a second time, or out of the range", l.id)
		}
		held[l.id] = l
	}
	if l, err := leaseID(dir, r, "vm"); err == nil || !strings.Contains(err.Error(), "all 5 ids of 1900000000-1900000004 are in use") {
		t.Errorf("a sixth one: %v, %v", l, err)
	}
	// What is held survives a sweep; the file of a dead holder does not.
	if err := held[1900000003].file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sweepLeases(dir); err != nil {
		t.Fatal(err)
	}
	for id := range held {
		_, err := os.Lstat(leaseFile(dir, id))
		if left := err == nil; left != (id != 1900000003) {
			t.Errorf("after the sweep: %d: %v", id, err)
		}
	}
	l, err := leaseID(dir, r, "vm")
	if err != nil || l.id != 1900000003 {
		t.Fatalf("the free one: %+v, %v", l, err)
	}
	if err := l.release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(leaseFile(dir, l.id)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the release: %v", err)
	}
	if err := sweepLeases(filepath.Join(dir, "none")); err != nil {
		t.Errorf("sweep of nothing: %v", err)
	}
}

// TestLeaseSkipsUsersAtWork: an id that a process has is not free, whatever the
// files say.
func TestLeaseSkipsUsersAtWork(t *testing.T) {
	own := uint32(os.Getuid())
	l, err := leaseID(t.TempDir(), IDRange{own, own + 1}, "vm")
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	if l.id == own {
		t.Errorf("got our own id %d", own)
	}
	if l, err := leaseID(t.TempDir(), IDRange{own, own}, "vm"); err == nil {
		t.Errorf("got %d", l.id)
	}
}

// TestLockFileOfRemovedFile: a lock on a file that is not there any more is none.
func TestLockFileOfRemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockFile(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *os.File)
	go func() {
		f, err := lockFile(path, 0) // waits, and wakes with a file that is gone
		if err != nil {
			t.Error(err)
		}
		got <- f
	}()
	waitFor(t, func() bool { return timesOpen(t, path) == 2 })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "of somebody else, who was faster")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := <-got
	defer second.Close()
	mine, err := second.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(mine, now) {
		t.Errorf("the lock is of another file than the one that is there: %v", err)
	}
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if f, err := lockFile(link, 0); err == nil {
		f.Close()
		t.Error("a link was followed")
	}
}

// timesOpen counts this process's descriptors of a file.
func timesOpen(t *testing.T, path string) int {
	t.Helper()
	n := 0
	for _, to := range openFiles(t) {
		if to == path {
			n++
		}
	}
	return n
}
