package guest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// capNames are the capabilities in the order of their numbers, capabilities(7).
const capNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL " +
	"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// capSet is a set of capabilities, bit by number.
type capSet uint64

// parseCaps reads names as CAP_CHOWN.
func parseCaps(names []string) (capSet, error) {
	var set capSet
	all := strings.Fields(capNames)
	for _, name := range names {
		i := -1
		if len(name) > len(capPrefix) && strings.EqualFold(name[:len(capPrefix)], capPrefix) {
			i = slices.IndexFunc(all, func(n string) bool { return strings.EqualFold(name[len(capPrefix):], n) })
		}
		if i < 0 {
			return 0, fmt.Errorf("unknown capability %q", api.Clean(name, 64))
		}
		set |= 1 << i
	}
	return set, nil
}

const capPrefix = "CAP_"

// capSets are the five sets of a process.
type capSets struct{ bounding, effective, permitted, inheritable, ambient capSet }

func parseCapSets(c *specs.LinuxCapabilities) (capSets, error) {
	var s capSets
	if c == nil {
		return s, nil
	}
	for _, p := range []struct {
		to   *capSet
		from []string
	}{
		{&s.bounding, c.Bounding}, {&s.effective, c.Effective}, {&s.permitted, c.Permitted},
		{&s.inheritable, c.Inheritable}, {&s.ambient, c.Ambient},
	} {
		set, err := parseCaps(p.from)
		if err != nil {
			return s, err
		}
		*p.to = set
	}
	return s, nil
}

// dropBounding removes from the bounding set what keep does not hold.
func dropBounding(keep capSet) error {
	for c := uintptr(0); c < 64; c++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil { // beyond the kernel's last
			return nil
		}
		if in == 1 && keep&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	return nil
}

// user is what capset(2) takes of the sets.
func (s capSets) user() (unix.CapUserHeader, [2]unix.CapUserData) {
	half := func(shift uint) unix.CapUserData {
		return unix.CapUserData{
			Effective:   uint32(s.effective >> shift),
			Permitted:   uint32(s.permitted >> shift),
			Inheritable: uint32(s.inheritable >> shift),
		}
	}
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{half(0), half(32)}
}

// set applies all but the bounding set to this thread.
func (s capSets) set() error {
	hdr, data := s.user()
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	for c := uintptr(0); c < 64; c++ {
		if s.ambient&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	return nil
}

// becomeUser gives up privileges: capabilities and ids, of this thread only,
// which is the one that executes the command.
func (s *stage) becomeUser() error {
	p := s.Spec.Process
	caps, err := parseCapSets(p.Capabilities)
	if err != nil {
		return err
	}
	if err := dropBounding(caps.bounding); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := setIDs(s.Who); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := caps.forFilter(s.Seccomp, p.NoNewPrivileges).set(); err != nil {
		return err
	}
	if p.NoNewPrivileges {
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	return nil
}

// setIDs uses the raw calls: Go's own change every thread, at a price.
func setIDs(who identity) error {
	groups := make([]uint32, len(who.Groups)+1) // +1: never empty
	for i, g := range who.Groups {
		groups[i] = uint32(g)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(who.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return fmt.Errorf("set groups: %w", e)
	}
	gid, uid := uintptr(who.GID), uintptr(who.UID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return fmt.Errorf("set gid %d: %w", who.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return fmt.Errorf("set uid %d: %w", who.UID, e)
	}
	return nil
}

// rlimitNames are the resource limits in the order of their numbers on most
// architectures, amd64 and arm64 among them.
const rlimitNames = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"

func parseRlimit(name string) (int, error) {
	for i, n := range strings.Fields(rlimitNames) {
		if strings.EqualFold(name, "RLIMIT_"+n) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("unknown resource limit %q", api.Clean(name, 64))
}

// setLimits sets resource limits and the OOM killer's score.
func (s *stage) setLimits() error {
	if err := s.setRlimits(); err != nil {
		return err
	}
	return s.setOOMScore()
}

func (s *stage) setRlimits() error {
	// Go raises its own soft limit of files to the hard one, which the agent
	// has set for all containers; programs expect the usual 1024.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("read resource limits: %w", err)
	}
	files.Cur = min(1024, files.Max)
	limits := map[int]syscall.Rlimit{unix.RLIMIT_NOFILE: files}
	for _, r := range s.Spec.Process.Rlimits {
		n, err := parseRlimit(r.Type)
		if err != nil {
			return err
		}
		limits[n] = syscall.Rlimit{Cur: r.Soft, Max: r.Hard}
	}
	for n, l := range limits {
		if err := syscall.Setrlimit(n, &l); err != nil {
			return fmt.Errorf("set resource limit %s to %d:%d: %w", strings.Fields(rlimitNames)[n], l.Cur, l.Max, err)
		}
	}
	return nil
}

// setOOMScore needs the /proc of this process's own pid namespace.
func (s *stage) setOOMScore() error {
	p := s.Spec.Process
	if p.OOMScoreAdj == nil {
		return nil
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*p.OOMScoreAdj)), 0); err != nil {
		return fmt.Errorf("set OOM score to %d: %w", *p.OOMScoreAdj, errors.Unwrap(err))
	}
	return nil
}

func ptr(p *byte) unsafe.Pointer { return unsafe.Pointer(p) }
