package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Allowed is why a container whose user does not ask for a bridge network should
// have none: they cannot be had here, or what guests send would be dropped by the
// firewall of somebody else. It changes nothing but a file beside Lock, which says
// until the host boots that the kernel can do all that Available tries: to ask
// again takes less than a millisecond.
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
	version, err := policyVersion()
	if err != nil {
		return err
	}
	tried := filepath.Join(filepath.Dir(h.Lock), "bridge-"+version)
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
