package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Allowed is why a container whose user does not ask for a bridge network should
// have none: they cannot be had here, or what guests send would be dropped by the
// firewall of somebody else. It changes nothing but a file beside Lock, which says
// until the host boots that all went well that Available tries: to ask again takes
// less than a millisecond.
func (h Host) Allowed() error {
	if err := Permitted(); err != nil {
		return err
	}
	if err := reachable(); err != nil {
		return err
	}
	drops, err := FindDrops()
	if err != nil {
		return err
	}
	if all := slices.Concat(drops.Forwarded, drops.Received); len(all) > 0 {
		return fmt.Errorf("another firewall drops what guests send: %s", strings.Join(all, ", "))
	}
	tried, err := h.tried()
	if err != nil {
		return err
	}
	if _, err := os.Stat(tried); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := Available(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(tried), 0o700); err != nil {
		return fmt.Errorf("remember that bridge networks can be had: %w", err)
	}
	return os.WriteFile(tried, nil, 0o600)
}

// tried is the path of the file that says that all went well. What the kernel allows
// differs between user namespaces.
func (h Host) tried() (string, error) {
	p, err := thePolicy()
	if err != nil {
		return "", err
	}
	var users unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &users); err != nil {
		return "", fmt.Errorf("look at the user namespace: %w", err)
	}
	return filepath.Join(filepath.Dir(h.Lock), fmt.Sprintf("bridge-%s-%d", p.version, users.Ino)), nil
}
