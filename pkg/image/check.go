package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/micropod/micropod/pkg/ledger"
	"github.com/micropod/micropod/pkg/state"
)

// Checker is an optional ability of a LayerStore: it finds what Prune with the
// same keep would remove. A finding without a repair is the garbage collector's.
type Checker interface {
	Check(keep func(diffID string) bool) ([]ledger.Finding, error)
}

// Check finds damaged records and what no image needs. Parts of downloads are
// for the next pull, until they are old; what living processes fetch is theirs.
func (s *Store) Check() ([]ledger.Finding, error) {
	l, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	x, err := s.readIndex()
	if errors.Is(err, ErrDamaged) {
		return []ledger.Finding{{Kind: ledger.Record, Subject: filepath.Join(s.dir, fileIndex), Problem: err.Error(), Remedy: "remove the file: its images are lost"}}, nil
	}
	if err != nil {
		return nil, err
	}
	records := s.checkRecords(x)
	found := append(slices.Clone(records), s.checkLeases()...)
	found = append(found, s.checkPartials()...)
	for _, path := range state.TempFiles(filepath.Join(s.dir, fileIndex)) {
		found = append(found, ledger.Finding{
			Kind: ledger.File, Subject: path, Problem: "a write of the index that did not end", Remedy: "remove it",
			Repair: func(context.Context) error { return s.update(func(*index) error { return nil }) },
		})
	}
	if len(records) > 0 {
		return found, nil // nobody can tell what a damaged image needs
	}
	more, err := s.checkGarbage(x)
	return append(found, more...), err
}

// garbage is a finding that GC repairs.
func (s *Store) garbage(kind ledger.Kind, path, problem string) ledger.Finding {
	return ledger.Finding{Kind: kind, Subject: path, Problem: problem, Remedy: "remove it", Repair: s.removeGarbage}
}

func (s *Store) removeGarbage(ctx context.Context) error {
	_, err := s.GC(ctx)
	return err
}

// checkRecords looks at the lines of the index and at the documents they name.
func (s *Store) checkRecords(x *index) []ledger.Finding {
	var found []ledger.Finding
	for _, err := range x.errs() {
		found = append(found, ledger.Finding{
			Kind: ledger.Record, Subject: filepath.Join(s.dir, fileIndex), Problem: err.Error(), Remedy: "move the line to a file beside it",
			Repair: func(context.Context) error { _, err := s.Repair(); return err },
		})
	}
	for _, r := range x.records {
		raw, err := s.content(r.ID)
		if err == nil {
			_, _, err = decodeConfig(raw)
		}
		if err != nil {
			found = append(found, ledger.Finding{Kind: ledger.Record, Subject: "image " + r.label(), Problem: err.Error(), Remedy: "pull it again, or remove it"})
		}
	}
	return found
}

func (s *Store) checkLeases() []ledger.Finding {
	return s.checkFiles(dirLeases, func(path string, _ os.FileInfo) string {
		if held, err := state.Held(path); held || err != nil {
			return ""
		}
		return "a lease on layers whose holder has died"
	})
}

func (s *Store) checkPartials() []ledger.Finding {
	return s.checkFiles(dirPartial, func(path string, info os.FileInfo) string {
		if held, err := state.Held(path); held || err != nil || time.Since(info.ModTime()) < partialLife {
			return ""
		}
		return "a part of a download that nobody came back for"
	})
}

// checkGarbage finds what GC would remove. The store's lock is held.
func (s *Store) checkGarbage(x *index) ([]ledger.Finding, error) {
	live, err := s.leases()
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	keep, err := s.needed(x, live)
	if err != nil {
		return nil, fmt.Errorf("check images: %w", err)
	}
	found := s.checkFiles(dirTmp, func(string, os.FileInfo) string { return "a temporary file whose writer has died" })
	found = append(found, s.checkFiles(dirContent, func(path string, _ os.FileInfo) string {
		if keep[digestPrefix+filepath.Base(path)] {
			return ""
		}
		return "a document of no image"
	})...)
	c, ok := s.layers.(Checker)
	if !ok {
		return found, nil
	}
	layers, err := c.Check(func(diffID string) bool { return keep[diffID] })
	for i := range layers {
		if layers[i].Repair == nil {
			layers[i].Repair = s.removeGarbage
		}
	}
	return append(found, layers...), err
}

// checkFiles asks about each file of a directory of the store; "" is no problem.
func (s *Store) checkFiles(dir string, problem func(path string, info os.FileInfo) string) []ledger.Finding {
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return []ledger.Finding{{Kind: ledger.Directory, Subject: filepath.Join(s.dir, dir), Problem: err.Error(), Remedy: "look at its file system"}}
	}
	var found []ledger.Finding
	for _, e := range entries {
		path := filepath.Join(s.dir, dir, e.Name())
		info, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		if p := problem(path, info); p != "" {
			found = append(found, s.garbage(ledger.File, path, p))
		}
	}
	return found
}
