package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
)

// database is the content of vms.json.
type database struct {
	Version int  `json:"version"`
	VMs     []VM `json:"vms"`
}

func (s *Store) dbPath() string { return filepath.Join(s.root, fileVMs) }

// readDB reads vms.json. A damaged one is rebuilt from the containers' own
// configs, so that losing one file never loses the others.
func (s *Store) readDB() (database, error) {
	var db database
	err := readJSON(s.dbPath(), &db)
	switch {
	case err == nil:
		return db, nil
	case missing(err), errors.Is(err, ErrDamaged):
		return s.rebuildDB()
	}
	return database{}, err
}

// rebuildDB makes the database from the directories that are there.
func (s *Store) rebuildDB() (database, error) {
	db := database{Version: schemaVersion}
	entries, err := os.ReadDir(filepath.Join(s.root, dirVMs))
	if err != nil {
		return db, fmt.Errorf("list containers: %w", err)
	}
	for _, e := range entries {
		if !ValidID(e.Name()) {
			continue
		}
		vm := VM{ID: e.Name(), Name: "recovered-" + e.Name()[:12]}
		if c, err := s.ReadConfig(e.Name()); err == nil && c.ID == e.Name() {
			vm.Image, vm.Created = c.Image, c.Created
			if CheckName(c.Name) == nil && !db.hasName(c.Name) {
				vm.Name = c.Name
			}
		}
		db.VMs = append(db.VMs, vm)
	}
	return db, nil
}

func (db *database) hasName(name string) bool {
	return slices.ContainsFunc(db.VMs, func(v VM) bool { return v.Name == name })
}

// update runs change on the database under its lock and writes the result.
func (s *Store) update(change func(*database) error) error {
	l, err := Lock(filepath.Join(s.root, fileVMsLock))
	if err != nil {
		return err
	}
	defer l.Unlock()
	db, err := s.readDB()
	if err != nil {
		return err
	}
	if err := change(&db); err != nil {
		return err
	}
	db.Version = schemaVersion
	return writeJSON(s.dbPath(), db)
}

// List returns the containers, oldest first.
func (s *Store) List() ([]VM, error) {
	db, err := s.readDB()
	if err != nil {
		return nil, err
	}
	vms := slices.DeleteFunc(db.VMs, func(v VM) bool { return !ValidID(v.ID) })
	slices.SortStableFunc(vms, func(a, b VM) int { return a.Created.Compare(b.Created) })
	return vms, nil
}

// Resolve finds a container by its id, its name or a unique prefix of its id,
// in docker's order. The error wraps ErrNotFound or ErrAmbiguous.
func (s *Store) Resolve(ref string) (VM, error) {
	vms, err := s.List()
	if err != nil {
		return VM{}, err
	}
	var found []VM
	for _, v := range vms {
		if v.ID == ref || v.Name == strings.TrimPrefix(ref, "/") {
			return v, nil
		}
		if ref != "" && strings.HasPrefix(v.ID, ref) {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return VM{}, fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	return VM{}, fmt.Errorf("%w: %s is the start of %d ids", ErrAmbiguous, ref, len(found))
}

// Create adds a container. fill is called with the paths of its new directory,
// before anybody else can see it, to put the disk there; c.ID and c.Name must
// be set. On an error nothing is left behind.
func (s *Store) Create(c Config, fill func(Paths) error) error {
	tmp := filepath.Join(s.root, dirVMs, newPrefix+c.ID)
	busy, err := s.begin(tmp)
	if err != nil {
		return err
	}
	defer busy.Unlock()
	defer os.RemoveAll(tmp) // renamed away on success
	failpoint.Here(failpoint.CreateLocked)
	c.Version = schemaVersion
	if err := writeJSON(Paths{tmp}.Config(), c); err != nil {
		return err
	}
	failpoint.Here(failpoint.CreateDescribed)
	if err := fill(Paths{tmp}); err != nil {
		return err
	}
	err = s.update(func(db *database) error {
		_ = s.sweep(db) // what stays is swept another time
		if db.hasName(c.Name) {
			return fmt.Errorf("%w: %s", ErrNameTaken, c.Name)
		}
		if err := os.Rename(tmp, s.Paths(c.ID).Dir); err != nil {
			return fmt.Errorf("create container directory: %w", err)
		}
		failpoint.Here(failpoint.CreateNamed)
		db.VMs = append(db.VMs, VM{ID: c.ID, Name: c.Name, Image: c.Image, Created: c.Created})
		return SyncDir(filepath.Join(s.root, dirVMs))
	})
	failpoint.Here(failpoint.CreateRecorded)
	if err != nil {
		os.RemoveAll(s.Paths(c.ID).Dir)
	}
	return err
}

// begin makes the directory of a container in the making. The lock in it tells
// it from one that a crash left; the lock of the database keeps others from
// looking in between.
func (s *Store) begin(dir string) (*FileLock, error) {
	l, err := Lock(filepath.Join(s.root, fileVMsLock))
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create container directory: %w", err)
	}
	failpoint.Here(failpoint.CreateMade)
	busy, err := TryLock(Paths{dir}.Alive())
	if err != nil {
		os.RemoveAll(dir)
	}
	return busy, err
}

// Rename gives a container another name. The error wraps ErrNameTaken, or
// ErrNotFound for a container that has gone.
func (s *Store) Rename(id, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return s.update(func(db *database) error {
		i := slices.IndexFunc(db.VMs, func(v VM) bool { return v.ID == id })
		switch {
		case i < 0:
			return fmt.Errorf("%w: %s", ErrNotFound, id)
		case db.hasName(name):
			return fmt.Errorf("%w: %s", ErrNameTaken, name)
		}
		db.VMs[i].Name = name
		return nil
	})
}

// Remove deletes a container. The caller holds its alive lock.
func (s *Store) Remove(id string) error {
	err := s.forget(id)
	if errors.Is(err, unix.ENOSPC) {
		// The disk is full: what is to go makes room for the list without it.
		err = errors.Join(s.removeFiles(id), s.forget(id))
	}
	failpoint.Here(failpoint.RemoveRecorded)
	if err == nil {
		err = s.removeFiles(id)
	}
	if err == nil {
		// Last: what is not freed for want of room, or by a crash, the next change
		// of the networks frees.
		err = s.freeLeases(id)
	}
	if err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// forget takes a container out of the database. If nobody comes to remove its
// files, the next Create does.
func (s *Store) forget(id string) error {
	return s.update(func(db *database) error {
		db.drop(id)
		return nil
	})
}

// removeFiles takes a container's directory out of sight, in one step, and
// removes it.
func (s *Store) removeFiles(id string) error {
	gone := filepath.Join(s.root, dirVMs, gonePrefix+id)
	if err := os.Rename(s.Paths(id).Dir, gone); err != nil && !missing(err) {
		return err
	}
	failpoint.Here(failpoint.RemoveHidden)
	return os.RemoveAll(gone)
}

// sweep removes what crashed Creates and Removes left: directories that no
// entry names and whose lock is free. The caller holds the database's lock.
func (s *Store) sweep(db *database) error {
	strays, err := s.strays(db)
	errs := []error{err}
	for _, path := range strays {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// strays lists those directories. The caller holds the database's lock.
func (s *Store) strays(db *database) ([]string, error) {
	dir := filepath.Join(s.root, dirVMs)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var paths []string
	for _, e := range entries {
		name := e.Name()
		half := strings.HasPrefix(name, newPrefix) || strings.HasPrefix(name, gonePrefix)
		if !half && (db.has(name) || !ValidID(name)) {
			continue
		}
		path := filepath.Join(dir, name)
		if held, err := Held(Paths{path}.Alive()); err == nil && !held {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

func (db *database) drop(id string) {
	db.VMs = slices.DeleteFunc(db.VMs, func(v VM) bool { return v.ID == id })
}

func (db *database) has(id string) bool {
	return slices.ContainsFunc(db.VMs, func(v VM) bool { return v.ID == id })
}

// Lock takes a container's alive lock; the error wraps ErrLocked while it runs.
func (s *Store) Lock(id string) (*FileLock, error) {
	l, err := TryLock(s.Paths(id).Alive())
	if missing(err) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return l, err
}

// Running reports whether the container's alive lock is held.
func (s *Store) Running(id string) (bool, error) { return Held(s.Paths(id).Alive()) }
