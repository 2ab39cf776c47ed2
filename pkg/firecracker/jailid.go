package firecracker

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// IDRange is a range of user ids, and of the group ids of the same numbers, for
// jails. No two VMs of a host have one of them at the same time.
type IDRange struct{ First, Last uint32 }

// The default range lies where no distribution and no container manager gives
// ids out (UIDS-GIDS of systemd: 1879048192 to 2147352575 are unused).
const (
	firstJailID = 1900000000
	lastJailID  = 1900065535
)

// DefaultJailIDs are free on ordinary hosts.
func DefaultJailIDs() IDRange { return IDRange{firstJailID, lastJailID} }

// Ids that mean something else.
const (
	idNobody  = 65534
	idNothing = 1<<32 - 1 // (uid_t)-1
)

// ParseIDRange reads "FIRST-LAST".
func ParseIDRange(s string) (IDRange, error) {
	first, last, ok := strings.Cut(s, "-")
	a, errA := strconv.ParseUint(first, 10, 32)
	b, errB := strconv.ParseUint(last, 10, 32)
	if !ok || errA != nil || errB != nil {
		return IDRange{}, fmt.Errorf("range of ids %q: want FIRST-LAST", s)
	}
	r := IDRange{uint32(a), uint32(b)}
	return r, r.check()
}

// String gives FIRST-LAST.
func (r IDRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

func (r IDRange) has(id uint64) bool { return uint64(r.First) <= id && id <= uint64(r.Last) }

// check refuses ids that are no plain user's.
func (r IDRange) check() error {
	switch {
	case r.First > r.Last:
		return fmt.Errorf("range of ids %s is empty", r)
	case r.has(0):
		return fmt.Errorf("range of ids %s has root in it", r)
	case r.has(idNobody):
		return fmt.Errorf("range of ids %s has nobody (%d) in it", r, idNobody)
	case r.has(idNothing):
		return fmt.Errorf("range of ids %s has %d in it, which stands for no id", r, uint32(idNothing))
	}
	return nil
}

// idTables are the files that give ids out, by the columns of first and count
// (-1: one id) and the separator ":" of all of them.
func idTables() map[string][2]int {
	return map[string][2]int{"passwd": {2, -1}, "group": {2, -1}, "subuid": {1, 2}, "subgid": {1, 2}}
}

// taken returns an error when a user, a group or somebody's subordinate ids
// are in r. Only the files of etc are looked at: asking a network would take
// its time at each start.
func (r IDRange) taken(etc string) error {
	for name, columns := range idTables() {
		f, err := os.Open(filepath.Join(etc, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		owner := r.ownerIn(f, columns)
		f.Close()
		if owner != "" {
			return fmt.Errorf("range of ids %s belongs to %s (%s)", r, owner, f.Name())
		}
	}
	return nil
}

func (r IDRange) ownerIn(f *os.File, columns [2]int) string {
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		number := func(column int) (uint64, bool) {
			if column >= len(fields) {
				return 0, false
			}
			n, err := strconv.ParseUint(fields[column], 10, 32)
			return n, err == nil
		}
		first, ok := number(columns[0])
		count := uint64(1)
		if columns[1] >= 0 {
			count, _ = number(columns[1])
		}
		if ok && count > 0 && first <= uint64(r.Last) && first+count > uint64(r.First) {
			return fields[0]
		}
	}
	return ""
}

// mapped returns an error when this process's user namespace, if it is not the
// first one, does not have all of r.
func (r IDRange) mapped(proc string) error {
	for _, name := range []string{"uid_map", "gid_map"} {
		text, err := os.ReadFile(filepath.Join(proc, "self", name))
		if err != nil {
			return err
		}
		found := false
		for line := range strings.Lines(string(text)) {
			var inside, outside, count uint64
			if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil {
				found = found || inside <= uint64(r.First) && uint64(r.Last) < inside+count
			}
		}
		if !found {
			return fmt.Errorf("range of ids %s is not all in this user namespace (%s)", r, name)
		}
	}
	return nil
}

// idLease is the claim of one id: a lock on a file, which the kernel gives
// back when the last process that holds it dies.
type idLease struct {
	id   uint32
	file *os.File
}

// leaseID takes an id of r that no VM has. The search begins at a place that
// depends on the VM, so that an id is rarely used again soon.
func leaseID(dir string, r IDRange, vm string) (*idLease, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	busy, err := idsOfProcesses()
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	h.Write([]byte(vm))
	size := uint64(r.Last-r.First) + 1
	for i := range size {
		id := r.First + uint32((h.Sum64()+i)%size)
		if busy[id] {
			continue
		}
		f, err := lockFile(leaseFile(dir, id), unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &idLease{id: id, file: f}, nil
	}
	return nil, fmt.Errorf("all %d ids of %s are in use (choose a larger range with --jail-ids)", size, r)
}

func leaseFile(dir string, id uint32) string {
	return filepath.Join(dir, strconv.FormatUint(uint64(id), 10))
}

// release gives the id back. The file goes first, while the lock still keeps
// others from it.
func (l *idLease) release() error {
	return errors.Join(remove(l.file.Name()), l.file.Close())
}

// sweepLeases removes the files of leases whose holders have died.
func sweepLeases(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		f, err := lockFile(filepath.Join(dir, e.Name()), unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return err
		}
		if err := (&idLease{file: f}).release(); err != nil {
			return err
		}
	}
	return nil
}

// lockFile opens and locks a file that others may remove while they hold its
// lock: only the lock of the file that is there now counts.
func lockFile(path string, flags int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|flags)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|flags)
		}
		if err != nil {
			f.Close()
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Lstat(path); err == nil && os.SameFile(mine, now) {
			return f, nil
		}
		f.Close()
	}
}

// idsOfProcesses lists the user ids that processes have now. A lease is free a
// moment before the last process of its VM is, and others may use ids that
// stand in no file.
func idsOfProcesses() (map[uint32]bool, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	ids := map[uint32]bool{}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it has ended
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			ids[st.Uid] = true
		}
	}
	return ids, nil
}
