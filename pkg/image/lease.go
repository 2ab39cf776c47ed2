package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

// leased is what a lease protects.
type leased struct {
	Image  string   `json:"image"`
	Layers []string `json:"layers"`
}

// acquire takes a lease on an image's layers, before they are looked for.
func (s *Store) acquire(id string, diffIDs []string) (*lease, error) {
	// GC and Remove look at leases under this lock, so they never see half of one.
	all, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer all.Unlock()
	return s.acquireLocked(id, diffIDs)
}

// acquireLocked is acquire under the store's lock.
func (s *Store) acquireLocked(id string, diffIDs []string) (*lease, error) {
	// Whoever fetches an image again that somebody died over tidies up.
	if _, err := s.liveLeases(); err != nil {
		s.o.Log.Warn("sweep leases", "cause", err)
	}
	path := filepath.Join(s.dir, dirLeases, state.NewID()[:16])
	l, err := state.TryLock(path)
	if err != nil {
		return nil, fmt.Errorf("protect layers: %w", err)
	}
	b, err := json.Marshal(leased{id, diffIDs})
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

// leases reads the leases of living processes. The store's lock is held.
func (s *Store) leases() ([]leased, error) { return s.readLeases(func(string) {}) }

// liveLeases is leases, and removes those of dead processes.
func (s *Store) liveLeases() ([]leased, error) {
	return s.readLeases(func(path string) { os.Remove(path) })
}

func (s *Store) readLeases(dead func(path string)) ([]leased, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirLeases))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var live []leased
	for _, e := range entries {
		path := filepath.Join(s.dir, dirLeases, e.Name())
		held, err := state.Held(path)
		if err != nil {
			return nil, err
		}
		if !held {
			dead(path)
			continue
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // released just now
		}
		if err != nil {
			return nil, fmt.Errorf("read lease: %w", err)
		}
		var l leased
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("read lease %s: %w", path, err)
		}
		live = append(live, l)
	}
	return live, nil
}

// Hold finds an image as Get does and keeps it from Remove and its layers from
// GC until release is called, or this process ends. It is for the time between
// choosing an image and recording who uses it.
func (s *Store) Hold(ref string) (img *Image, release func(), err error) {
	all, err := s.lock()
	if err != nil {
		return nil, nil, err
	}
	defer all.Unlock()
	if img, err = s.Get(ref); err != nil {
		return nil, nil, err
	}
	l, err := s.acquireLocked(img.ID, img.DiffIDs)
	if err != nil {
		return nil, nil, err
	}
	return img, l.release, nil
}
