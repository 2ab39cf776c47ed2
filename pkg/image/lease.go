package image

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/micropod/micropod/pkg/state"
)

// lease protects the layers of an image that is being fetched from GC, in this
// process and in others. It is a file that names the layers, and its lock is
// held for the lease's life: the kernel ends the lease of a process that dies.
type lease struct {
	l    *state.FileLock
	path string
}

// acquire takes a lease on layers, before they are looked for.
func (s *Store) acquire(diffIDs []string) (*lease, error) {
	// GC looks at leases under this lock, so it never sees half of one.
	all, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer all.Unlock()
	path := filepath.Join(s.dir, dirLeases, state.NewID()[:16])
	l, err := state.TryLock(path)
	if err != nil {
		return nil, fmt.Errorf("protect layers: %w", err)
	}
	b, err := json.Marshal(diffIDs)
	if err == nil {
		_, err = l.File().Write(b)
	}
	if err != nil {
		os.Remove(path)
		l.Unlock()
		return nil, fmt.Errorf("protect layers: %w", err)
	}
	return &lease{l, path}, nil
}

func (l *lease) release() {
	os.Remove(l.path)
	l.l.Unlock()
}

// leased collects the layers under a lease and removes the leases of the dead.
// The store's lock is held.
func (s *Store) leased(keep map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirLeases))
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, dirLeases, e.Name())
		held, err := state.Held(path)
		if err != nil {
			return err
		}
		if !held {
			os.Remove(path)
			continue
		}
		raw, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // released just now
		}
		if err != nil {
			return fmt.Errorf("read lease: %w", err)
		}
		var ids []string
		if err := json.Unmarshal(raw, &ids); err != nil {
			return fmt.Errorf("read lease %s: %w", path, err)
		}
		for _, id := range ids {
			keep[id] = true
		}
	}
	return nil
}
