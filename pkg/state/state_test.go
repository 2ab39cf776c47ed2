package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Store, name string) string {
	t.Helper()
	id := NewID()
	c := Config{ID: id, Name: name, Image: "busybox", Created: time.Now()}
	if err := s.Create(c, func(Paths) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCreateResolveRemove(t *testing.T) {
	s := newStore(t)
	a, b := create(t, s, "one"), create(t, s, "two")
	for _, c := range []struct {
		ref, want string
		err       error
	}{
		{a, a, nil}, {"one", a, nil}, {"/two", b, nil}, {b[:12], b, nil},
		{"", "", ErrNotFound}, {"three", "", ErrNotFound}, {a + "0", "", ErrNotFound},
	} {
		got, err := s.Resolve(c.ref)
		if got.ID != c.want || !errors.Is(err, c.err) {
			t.Errorf("Resolve(%q) = %q, %v; want %q, %v", c.ref, got.ID, err, c.want, c.err)
		}
	}
	err := s.Create(Config{ID: NewID(), Name: "one"}, func(Paths) error { return nil })
	if !errors.Is(err, ErrNameTaken) {
		t.Errorf("second one: %v", err)
	}
	if err := s.Remove(a); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve("one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed container resolves: %v", err)
	}
	wantEntries(t, s, b)
}

// wantEntries checks what the vms directory holds.
func wantEntries(t *testing.T, s *Store, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Root(), "vms"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("vms holds %q, want %q", got, want)
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	s := newStore(t)
	for i, id := range []string{strings.Repeat("a", 64), strings.Repeat("a", 63) + "b"} {
		c := Config{ID: id, Name: fmt.Sprint("n", i)}
		if err := s.Create(c, func(Paths) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Resolve("aa"); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("Resolve(aa): %v", err)
	}
	if v, err := s.Resolve(strings.Repeat("a", 64)); err != nil || v.Name != "n0" {
		t.Errorf("complete id: %v, %v", v, err)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	s := newStore(t)
	boom := errors.New("no space")
	err := s.Create(Config{ID: NewID(), Name: "x"}, func(p Paths) error {
		if err := os.WriteFile(p.Disk(), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("Create: %v", err)
	}
	wantEntries(t, s)
	if vms, err := s.List(); err != nil || len(vms) != 0 {
		t.Errorf("List: %v, %v", vms, err)
	}
}

// On a full disk a container can still be removed: how else would room be made?
func TestRemoveOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	mnt := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mnt).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", mnt).Run() })
	s, err := Open(filepath.Join(mnt, "root"))
	if err != nil {
		t.Fatal(err)
	}
	c := Config{ID: NewID(), Name: "big", Created: time.Now()}
	if err := s.Create(c, func(p Paths) error { return os.WriteFile(p.Disk(), make([]byte, 64<<10), 0o600) }); err != nil {
		t.Fatal(err)
	}
	kept := create(t, s, "kept")
	if err := os.WriteFile(filepath.Join(mnt, "filler"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := s.Remove(c.ID); err != nil {
		t.Error(err)
	}
	vms, err := s.List()
	if err != nil || len(vms) != 1 || vms[0].ID != kept {
		t.Errorf("got %v, %v, want only %s", vms, err, kept)
	}
	if left, _ := filepath.Glob(filepath.Join(mnt, "root", dirVMs, "*"+c.ID)); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

func TestConcurrentCreatesHaveOneWinner(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Create(Config{ID: NewID(), Name: "same"}, func(Paths) error { return nil })
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrNameTaken) {
			t.Errorf("loser: %v", err)
		}
	}
	vms, err := s.List()
	if won != 1 || len(vms) != 1 || err != nil {
		t.Errorf("%d winners, list %v, %v", won, vms, err)
	}
	wantEntries(t, s, vms[0].ID)
}

// TestDamagedDatabase damages vms.json in every way that a crash or a bad disk
// does: the containers stay usable by name and id.
func TestDamagedDatabase(t *testing.T) {
	for name, damage := range map[string]func(string) error{
		"gone":      os.Remove,
		"empty":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"truncated": func(p string) error { return os.Truncate(p, 30) },
		"zeroed":    func(p string) error { return os.WriteFile(p, make([]byte, 200), 0o600) },
		"wrong type": func(p string) error {
			return os.WriteFile(p, []byte(`{"version":1,"vms":{"id":3}}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			id := create(t, s, "keep")
			if err := damage(filepath.Join(s.Root(), "vms.json")); err != nil {
				t.Fatal(err)
			}
			if v, err := s.Resolve("keep"); err != nil || v.ID != id {
				t.Errorf("Resolve: %v, %v", v, err)
			}
			other := create(t, s, "more")
			if v, err := s.Resolve(other); err != nil || v.Name != "more" {
				t.Errorf("Resolve after a write: %v, %v", v, err)
			}
		})
	}
}

func TestNewerSchemaFailsClosed(t *testing.T) {
	s := newStore(t)
	create(t, s, "keep")
	path := filepath.Join(s.Root(), "vms.json")
	newer := []byte(`{"version":2,"vms":[]}`)
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	err := s.Create(Config{ID: NewID(), Name: "x"}, func(Paths) error { return nil })
	if !errors.Is(err, ErrNewer) {
		t.Errorf("Create: %v", err)
	}
	if b, _ := os.ReadFile(path); !bytes.Equal(b, newer) {
		t.Errorf("the newer file was touched: %s", b)
	}
}

func TestBrokenRecordIsNamed(t *testing.T) {
	s := newStore(t)
	id := create(t, s, "bad")
	for _, content := range []string{"", "{", `{"version":1,"cpus":"x"}`, `{"version":0}`} {
		if err := os.WriteFile(s.Paths(id).Config(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadConfig(id); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), id) {
			t.Errorf("config %q: %v", content, err)
		}
	}
	if err := os.Remove(s.Paths(id).Config()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.Paths(id).Config(), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadConfig(id); !errors.Is(err, ErrDamaged) {
		t.Errorf("a directory as config: %v", err)
	}
	if err := s.Remove(id); err != nil {
		t.Errorf("a broken container cannot be removed: %v", err)
	}
}

// TestLockFollowsInheritance holds a lock in a child only.
func TestLockFollowsInheritance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alive")
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("second TryLock: %v", err)
	}
	child := exec.Command("cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.ExtraFiles = []*os.File{l.File()}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	l.Unlock()
	if held, err := Held(path); !held || err != nil {
		t.Errorf("with the child alive: held %v, %v", held, err)
	}
	in.Close()
	child.Wait()
	if held, err := Held(path); held || err != nil {
		t.Errorf("with the child gone: held %v, %v", held, err)
	}
}

func TestLockOfRemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *FileLock)
	go func() {
		l, err := Lock(path)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first.Unlock()
	l := <-got
	defer l.Unlock()
	if held, err := Held(path); !held || err != nil {
		t.Errorf("the waiter locked a file that is gone: held %v, %v", held, err)
	}
}

func TestProcessIdentity(t *testing.T) {
	c := exec.Command("cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := IdentifyProcess(c.Process.Pid)
	if !p.Alive() {
		t.Errorf("%+v is not alive", p)
	}
	for _, other := range []Process{
		{PID: p.PID, Start: p.Start + 1, Boot: p.Boot},
		{PID: p.PID, Start: p.Start, Boot: "another boot"},
		{},
	} {
		if other.Alive() {
			t.Errorf("%+v is alive", other)
		}
		if err := other.Kill(); err != nil {
			t.Errorf("Kill of %+v: %v", other, err)
		}
	}
	if !p.Alive() {
		t.Fatal("a stranger was killed")
	}
	if err := p.Kill(); err != nil {
		t.Errorf("Kill: %v", err)
	}
	in.Close()
	c.Wait()
	if p.Alive() {
		t.Error("alive after Kill")
	}
}

func TestProcessEndsWithin(t *testing.T) {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	p := IdentifyProcess(child.Process.Pid)
	if p.EndsWithin(time.Millisecond) {
		t.Error("a process that runs has ended")
	}
	ended := make(chan bool, 1)
	go func() { ended <- p.EndsWithin(time.Hour) }()
	child.Process.Kill()
	if !<-ended {
		t.Error("a killed process has not ended")
	}
	child.Wait()
	if !p.EndsWithin(0) {
		t.Error("a process that is gone has not ended")
	}
	other := IdentifyProcess(os.Getpid())
	other.Start--
	if !other.EndsWithin(0) {
		t.Error("the process that had our number has not ended")
	}
}

func TestSweepTakesOnlyTheDead(t *testing.T) {
	s := newStore(t)
	first := create(t, s, "first")
	dir := filepath.Join(s.Root(), "vms")
	for _, name := range []string{newPrefix + NewID(), gonePrefix + NewID(), NewID()} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	busy := filepath.Join(dir, newPrefix+"busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := TryLock(filepath.Join(busy, "alive"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	id := create(t, s, "x")
	want := []string{first, id}
	slices.Sort(want)
	wantEntries(t, s, append([]string{newPrefix + "busy"}, want...)...)
}

func TestPermissions(t *testing.T) {
	s := newStore(t)
	id := create(t, s, "x")
	if err := WriteStatus(s.Paths(id), Status{Phase: PhaseRunning}); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(s.Root(), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzStateFiles(f *testing.F) {
	f.Add([]byte(`{"version":1,"vms":[{"id":"x","name":"y"}]}`))
	f.Add([]byte(`{"version":1,"phase":"running","vmm":{"pid":-1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newStore(t)
		id := create(t, s, "x")
		for _, path := range []string{s.dbPath(), s.Paths(id).Config(), s.Paths(id).Status()} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.List()
		s.Resolve("x")
		s.ReadConfig(id)
		if st, err := s.ReadStatus(id); err == nil && st.VMM.PID <= 0 && st.VMM.Alive() {
			t.Error("a process that cannot be is alive")
		}
	})
}

func TestRename(t *testing.T) {
	s := newStore(t)
	first, second := create(t, s, "first"), create(t, s, "second")
	if err := s.Rename(first, "other"); err != nil {
		t.Fatal(err)
	}
	if vm, err := s.Resolve("other"); err != nil || vm.ID != first {
		t.Errorf("%+v, %v", vm, err)
	}
	if _, err := s.Resolve("first"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old name: %v", err)
	}
	if err := s.Rename(first, "second"); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := s.Rename(second, "first"); err != nil {
		t.Errorf("a name that is free again: %v", err)
	}
	if err := s.Rename(second, "../x"); err == nil {
		t.Error("a path as a name")
	}
	if err := s.Rename(NewID(), "third"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a container that is not there: %v", err)
	}
}

func TestWatch(t *testing.T) {
	s := newStore(t)
	id := create(t, s, "watched")
	w, err := s.Watch(id)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := WriteStatus(s.Paths(id), Status{Phase: PhaseExited}); err != nil {
		t.Fatal(err)
	}
	if err := w.Next(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing has changed: %v", err)
	}
	gone, err := s.Watch(id)
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if err := s.Remove(id); err != nil {
		t.Fatal(err)
	}
	if err := gone.Next(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTokenFile(t *testing.T) {
	s := newStore(t)
	p := s.Paths(create(t, s, "vm"))
	for _, token := range []string{"one", "another"} { // a stale one is replaced
		if err := WriteToken(p, token); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadToken(p); got != token || err != nil {
			t.Errorf("token %q, %v", got, err)
		}
	}
	if st, err := os.Stat(p.Token()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	for range 2 {
		if err := RemoveToken(p); err != nil {
			t.Error(err)
		}
	}
}

func TestResident(t *testing.T) {
	self := IdentifyProcess(os.Getpid())
	if n := self.Resident(); n < 1<<20 || n > 1<<32 {
		t.Errorf("%d bytes", n)
	}
	self.Start++ // another process with this pid
	if n := self.Resident(); n != 0 {
		t.Errorf("of a process that is gone: %d bytes", n)
	}
	if n := (Process{}).Resident(); n != 0 {
		t.Errorf("of none: %d bytes", n)
	}
}

func TestNamesAndIDs(t *testing.T) {
	for name, want := range map[string]bool{
		"ab": true, "A1_.-": true, strings.Repeat("x", 128): true,
		"": false, "a": false, strings.Repeat("x", 129): false, "-ab": false, ".ab": false, "_ab": false, "a/b": false,
		"a b": false, "ab\n": false, "é1": false, "a\xff": false, "a\x00b": false,
	} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	for id, want := range map[string]bool{
		NewID(): true, strings.Repeat("0f", 32): true,
		"": false, strings.Repeat("0", 63): false, strings.Repeat("0", 65): false, strings.Repeat("0F", 32): false,
		strings.Repeat("0", 63) + "/": false, strings.Repeat("0", 63) + "\n": false, "../" + strings.Repeat("0", 61): false,
	} {
		if ValidID(id) != want {
			t.Errorf("%q: %t", id, !want)
		}
	}
}
