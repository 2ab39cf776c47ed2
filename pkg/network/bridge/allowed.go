package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Allowed says why a container whose user does not ask for a bridge network should
// have none, "" if nothing is against it: they cannot be had here, or what guests send
// would be dropped by the firewall of somebody else. An error says that this cannot be
// told now; it is no reason, as the next container would be elsewhere then.
//
// It changes nothing but a file beside Lock, which says until the host boots that all
// went well that Available tries: to ask again takes less than a millisecond, and some
// ten where others have many rules.
func (h Host) Allowed() (why string, err error) {
	for _, able := range []func() error{Permitted, reachable, h.makeDirectory, h.tryOnce} {
		if err := able(); passes(err) {
			return "", err
		} else if err != nil {
			return err.Error(), nil
		}
	}
	drops, err := FindDrops()
	if err != nil {
		return "", err
	}
	return drops.reason(), nil
}

// passes reports whether an error says nothing of what can be had here: the same may
// go well in a moment. Pure.
func passes(err error) bool {
	return slices.ContainsFunc([]error{
		unix.EAGAIN, unix.EINTR, unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.ENFILE, netlink.ErrDumpInterrupted, os.ErrDeadlineExceeded,
	}, func(e error) bool { return errors.Is(err, e) })
}

// reason is why guests would reach nobody, "" if they do. Pure.
func (d Drops) reason() string {
	if all := slices.Concat(d.Forwarded, d.Received); len(all) > 0 {
		return "another firewall drops what guests send: " + strings.Join(all, ", ")
	}
	if d.TooMany {
		return fmt.Sprintf("another firewall has more than %d rules: what they drop is not known", maxRules)
	}
	return ""
}

// makeDirectory makes that of Lock, if it is missing. One in which others can write is
// none: they could keep the lock, and say that all went well.
func (h Host) makeDirectory() error {
	dir := filepath.Dir(h.Lock)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory of the network lock: %w", err)
	}
	var s unix.Stat_t
	if err := unix.Lstat(dir, &s); err != nil {
		return fmt.Errorf("directory of the network lock: look at %s: %w", dir, err)
	}
	if s.Mode&unix.S_IFMT != unix.S_IFDIR || int(s.Uid) != os.Geteuid() || s.Mode&0o022 != 0 {
		return fmt.Errorf("directory of the network lock: %s is not a directory that belongs to user %d and is written by nobody else (remove it)", dir, os.Geteuid())
	}
	return nil
}

// tryOnce is Available, unless it went well since the host booted.
func (h Host) tryOnce() error {
	file := filepath.Join(filepath.Dir(h.Lock), "bridge-tried")
	now, err := circumstances()
	if err != nil {
		return err
	}
	before, err := os.ReadFile(file)
	if err == nil && string(before) == now {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look whether bridge networks can be had: %w", err)
	}
	if err := Available(); err != nil {
		return err
	}
	// On a full disk it is tried again.
	if err := os.WriteFile(file, []byte(now), 0o600); err != nil && !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("remember that bridge networks can be had: %w", err)
	}
	return nil
}

// circumstances are what decides how Available goes: the policy, the kernel that runs,
// as not everywhere /run is emptied when the host boots, and the user namespace, as
// what the kernel allows differs between them.
func circumstances() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("look which boot this is: %w", err)
	}
	var users unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &users); err != nil {
		return "", fmt.Errorf("look at the user namespace: %w", err)
	}
	return fmt.Sprintf("%s, user namespace %d, boot %s", policyVersion, users.Ino, boot), nil
}
