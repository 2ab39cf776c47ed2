package state

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/micropod/micropod/pkg/ledger"
)

// CheckNetworks looks at the file of networks, and for leases of containers that
// are no more.
func (s *Store) CheckNetworks() ([]ledger.Finding, error) {
	if !s.hasNetworks() {
		return nil, nil
	}
	l, err := Lock(filepath.Join(s.root, fileNetworksLock))
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	tidy := func(context.Context) error { return s.ChangeNetworks(func(*Networks) error { return nil }) }
	var found []ledger.Finding
	n, err := s.Networks()
	if errors.Is(err, ErrDamaged) {
		// Nothing else tells which networks there were: it is not ours to begin anew.
		return append(found, ledger.Finding{
			Kind: ledger.Record, Subject: s.networksPath(), Problem: err.Error(),
			Remedy: "mend the file, or move it away and create the networks again",
		}), nil
	}
	if err != nil {
		return nil, err
	}
	for _, path := range TempFiles(s.networksPath()) {
		found = append(found, ledger.Finding{
			Kind: ledger.File, Subject: path, Problem: "a write of the networks that did not end", Remedy: "remove it", Repair: tidy,
		})
	}
	db, err := s.readDB()
	if err != nil {
		return found, err
	}
	for _, l := range n.Leases {
		if db.has(l.VM) {
			continue
		}
		found = append(found, ledger.Finding{
			Kind: ledger.Record, Subject: fmt.Sprintf("address %s of network %.12s", l.Address, l.Network),
			Problem: fmt.Sprintf("container %.12s is no more", l.VM), Remedy: "free it", Repair: tidy,
		})
	}
	return found, nil
}
