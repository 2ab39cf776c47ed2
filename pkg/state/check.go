package state

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

// Check compares the database with the directories of containers, and finds what
// was left of changes that a crash cut off. What is in a container's directory
// is not looked at.
func (s *Store) Check() ([]ledger.Finding, error) {
	l, err := Lock(filepath.Join(s.root, fileVMsLock))
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	found, err := s.checkDB()
	if err != nil {
		return nil, err
	}
	db, err := s.readDB()
	if err != nil {
		return nil, err
	}
	strays, err := s.strays(&db)
	for _, path := range strays {
		found = append(found, ledger.Finding{
			Kind: ledger.Directory, Subject: path, Problem: "belongs to no container", Remedy: "remove it", Repair: s.removeStrays,
		})
	}
	return append(found, s.checkEntries(&db)...), err
}

// checkDB looks at the file itself. With the lock held nobody writes it.
func (s *Store) checkDB() ([]ledger.Finding, error) {
	var found []ledger.Finding
	for _, path := range TempFiles(s.dbPath()) {
		found = append(found, ledger.Finding{
			Kind: ledger.File, Subject: path, Problem: "a write of the database that did not end", Remedy: "remove it", Repair: s.removeStrays,
		})
	}
	err := readJSON(s.dbPath(), &database{})
	if missing(err) {
		rebuilt, rerr := s.rebuildDB()
		if rerr != nil || len(rebuilt.VMs) == 0 {
			return found, rerr // nothing was ever created
		}
	}
	if missing(err) || errors.Is(err, ErrDamaged) {
		found = append(found, ledger.Finding{
			Kind: ledger.Record, Subject: s.dbPath(), Problem: err.Error(), Remedy: "rebuild it from the containers' own records",
			Repair: func(context.Context) error { return s.update(func(*database) error { return nil }) },
		})
		err = nil
	}
	return found, err
}

func (s *Store) checkEntries(db *database) []ledger.Finding {
	var found []ledger.Finding
	for _, vm := range db.VMs {
		if _, err := os.Lstat(s.Paths(vm.ID).Dir); ValidID(vm.ID) && !missing(err) {
			continue
		}
		found = append(found, ledger.Finding{
			Kind: ledger.Record, Subject: "container " + vm.Name, Problem: "has no directory", Remedy: "remove its record",
			Repair: func(context.Context) error { return s.forgetLost(vm.ID) },
		})
	}
	return found
}

// forgetLost removes the entry of a container whose directory is gone.
func (s *Store) forgetLost(id string) error {
	return s.update(func(db *database) error {
		if _, err := os.Lstat(s.Paths(id).Dir); ValidID(id) && !missing(err) {
			return nil
		}
		db.drop(id)
		return nil
	})
}

// removeStrays removes what neither the database nor a living process has.
func (s *Store) removeStrays(context.Context) error {
	return s.update(s.sweep)
}

// TempFiles lists the temporary files of writes of path, by WriteFile, that have
// not ended. The caller holds the lock under which path is written, so that the
// writers are dead.
func TempFiles(path string) []string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix(path)) {
			found = append(found, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return found
}

// RemoveTempFiles removes what TempFiles lists, under the same condition.
func RemoveTempFiles(path string) error {
	for _, temp := range TempFiles(path) {
		if err := os.Remove(temp); err != nil && !missing(err) {
			return fmt.Errorf("remove what was left of a write: %w", err)
		}
	}
	return nil
}

// RemoveUnlocked removes a file that is its own lock, unless a living process
// holds that. One that is not there is no error.
func RemoveUnlocked(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	defer f.Close()
	err = setLock(f, unix.F_OFD_SETLK)
	if errors.Is(err, ErrLocked) || err == nil && !SameFile(f, path) {
		return nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
