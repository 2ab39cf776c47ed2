package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/ledger"
)

// CheckCache finds what is left in a kernel cache of writers that died and of
// kernels that were replaced. A cache that somebody works on is not looked at.
func CheckCache(dir string) ([]ledger.Finding, error) {
	c := cache{dir: dir}
	f, err := os.Open(c.lockPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("check kernel cache: %w", err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("check kernel cache: %w", err)
	}
	return c.check()
}

func (c cache) check() ([]ledger.Finding, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("check kernel cache: %w", err)
	}
	keep := c.inUse(entries)
	var found []ledger.Finding
	for _, e := range entries {
		problem := ""
		switch {
		case strings.HasPrefix(e.Name(), tempPrefix):
			problem = "a write that did not end"
		case cached(e.Name()) && !keep[e.Name()]:
			problem = "of a kernel that is no more"
		default:
			continue
		}
		found = append(found, ledger.Finding{
			Kind: ledger.File, Subject: filepath.Join(c.dir, e.Name()), Problem: problem, Remedy: "remove it", Repair: c.tidy,
		})
	}
	return found, nil
}

func (c cache) tidy(context.Context) error {
	unlock, err := c.lock() // removes temporary files
	if err != nil {
		return err
	}
	defer unlock()
	c.prune()
	return nil
}
