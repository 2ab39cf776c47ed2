package template

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lock is held by who makes a template, from before it has a file.
func (s Store) lock() string { return filepath.Join(s.Dir, ".lock") }

// expire keeps so many templates, those that were used last, and removes what a
// crash has left, marks of failures that do not count any more, and others that are
// a month old. The lock is held. A VM that is starting holds its template's files,
// or boots.
func (s Store) expire(keep int) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return
	}
	var states []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		switch ext := filepath.Ext(e.Name()); {
		case ext == suffixState:
			states = append(states, info)
		case strings.HasPrefix(e.Name(), tempPrefix),
			ext == suffixFailed && !counts(info),
			ext == suffixSeen && time.Since(info.ModTime()) > 30*24*time.Hour:
			os.RemoveAll(filepath.Join(s.Dir, e.Name()))
		}
	}
	slices.SortFunc(states, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, old := range states[min(keep, len(states)):] {
		_ = s.remove(old.Name()) // the next one's problem
	}
}

// Strays lists what is left of templates whose makers died. What a living process is
// making is not among it.
func (s Store) Strays() (left []string, err error) {
	err = s.strays(func(path string) error {
		left = append(left, path)
		return nil
	})
	return left, err
}

// RemoveStrays removes that. Idempotent.
func (s Store) RemoveStrays() error { return s.strays(os.RemoveAll) }

// strays calls do for all that is temporary, unless a template is being made.
func (s Store) strays(do func(path string) error) error {
	lock, err := os.OpenFile(s.lock(), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // none was ever made
	}
	if err != nil {
		return fmt.Errorf("check templates: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("check templates: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			errs = append(errs, do(filepath.Join(s.Dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
