package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/micropod/micropod/internal/failpoint"
)

// Errors about networks that callers tell apart with errors.Is.
var (
	ErrNoNetwork        = errors.New("no such network")
	ErrAmbiguousNetwork = errors.New("ambiguous network")
)

// NetworkRecord is a named network. It is there from its creation to its removal,
// whether a VM is in it or not.
type NetworkRecord struct {
	ID      string       `json:"id"` // of the form of NewID
	Name    string       `json:"name"`
	Driver  string       `json:"driver"` // bridge or user
	Created time.Time    `json:"created"`
	Subnet  netip.Prefix `json:"subnet"` // IPv4
	Gateway netip.Addr   `json:"gateway"`
	// Range is the part of Subnet that addresses of VMs are taken from by
	// themselves; invalid is all of it.
	Range netip.Prefix `json:"range,omitzero"`
	// Subnet6 and Gateway6 are invalid in a network without IPv6.
	Subnet6  netip.Prefix `json:"subnet6,omitzero"`
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`
	Range6   netip.Prefix `json:"range6,omitzero"`
	// Reserved addresses are of the user's own devices, by names of his.
	Reserved   map[string]netip.Addr `json:"reserved,omitempty"`
	Internal   bool                  `json:"internal,omitempty"`
	Attachable bool                  `json:"attachable,omitempty"` // shown only
	Options    map[string]string     `json:"options,omitempty"`
	Labels     map[string]string     `json:"labels,omitempty"`
}

// Lease is the address of a container in a network. It is taken at the first
// start, or with the container if its user chose it, and stays until the container
// or the network is removed, or they are disconnected.
type Lease struct {
	Network  string     `json:"network"` // id
	VM       string     `json:"vm"`      // id
	Address  netip.Addr `json:"address"`
	Address6 netip.Addr `json:"address6,omitzero"`
	MAC      string     `json:"mac"`
	// Names are those by which others in the network find the container, beside
	// its own and its id.
	Names []string `json:"names,omitempty"`
}

// Networks is the content of networks.json.
type Networks struct {
	Version  int             `json:"version"`
	Networks []NetworkRecord `json:"networks"`
	Leases   []Lease         `json:"leases"`
}

func (s *Store) networksPath() string { return filepath.Join(s.root, fileNetworks) }

// Networks reads the networks and leases. There are none where none was ever
// made; a damaged file is an error that wraps ErrDamaged, and stays as it is.
func (s *Store) Networks() (Networks, error) {
	n := Networks{Version: schemaVersion}
	if err := readJSON(s.networksPath(), &n); err != nil && !missing(err) {
		return Networks{}, fmt.Errorf("read networks: %w", err)
	}
	if err := n.check(); err != nil {
		return Networks{}, fmt.Errorf("read networks: %s: %w: %w", s.networksPath(), ErrDamaged, err)
	}
	return n, nil
}

// check refuses what no VM could live with: their supervisors read it too, for
// each question of a guest.
func (n *Networks) check() error {
	for i, r := range n.Networks {
		if !ValidID(r.ID) || !r.Subnet.IsValid() || !r.Gateway.IsValid() {
			return fmt.Errorf("network %d has no id, subnet or gateway", i+1)
		}
	}
	for i, l := range n.Leases {
		if !ValidID(l.Network) || !ValidID(l.VM) || !l.Address.IsValid() {
			return fmt.Errorf("lease %d has no network, VM or address", i+1)
		}
	}
	return nil
}

// ChangeNetworks runs change on the networks and leases under their lock, and
// writes what it made of them, unless it fails or they are as before. Leases of
// containers that are no more are gone then.
//
// A lease is taken for a container only while that is in the database: so one of a
// container which is not there was left by a crash.
func (s *Store) ChangeNetworks(change func(*Networks) error) error {
	l, err := Lock(filepath.Join(s.root, fileNetworksLock))
	if err != nil {
		return err
	}
	defer l.Unlock()
	n, err := s.Networks()
	if err != nil {
		return err
	}
	db, err := s.readDB()
	if err != nil {
		return err
	}
	before, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode networks: %w", err)
	}
	n.Leases = slices.DeleteFunc(n.Leases, func(l Lease) bool { return !db.has(l.VM) })
	if err := change(&n); err != nil {
		return err
	}
	n.Version = schemaVersion
	if after, err := json.Marshal(n); err == nil && bytes.Equal(before, after) {
		return RemoveTempFiles(s.networksPath())
	}
	err = writeJSON(s.networksPath(), n)
	failpoint.Here(failpoint.NetworksWritten)
	return err
}

// freeLeases gives back the addresses of a container that has been removed.
func (s *Store) freeLeases(id string) error {
	n, err := s.Networks()
	if err != nil || len(n.LeasesOf(id)) == 0 {
		return err
	}
	return s.ChangeNetworks(func(n *Networks) error {
		n.Free(func(l Lease) bool { return l.VM == id })
		return nil
	})
}

// Find finds a network by its id, its name or a unique prefix of its id, in
// docker's order. The error wraps ErrNoNetwork or ErrAmbiguousNetwork. The record
// is the one in n: it may be changed.
func (n *Networks) Find(ref string) (*NetworkRecord, error) {
	for _, exact := range []func(r NetworkRecord) bool{
		func(r NetworkRecord) bool { return r.ID == ref },
		func(r NetworkRecord) bool { return r.Name == ref },
	} {
		if i := slices.IndexFunc(n.Networks, exact); i >= 0 {
			return &n.Networks[i], nil
		}
	}
	var found []*NetworkRecord
	for i := range n.Networks {
		if ref != "" && strings.HasPrefix(n.Networks[i].ID, ref) {
			found = append(found, &n.Networks[i])
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNoNetwork, ref)
	}
	return nil, fmt.Errorf("%w: %s is the start of %d ids", ErrAmbiguousNetwork, ref, len(found))
}

// Drop removes a network and its leases.
func (n *Networks) Drop(id string) {
	n.Networks = slices.DeleteFunc(n.Networks, func(r NetworkRecord) bool { return r.ID == id })
	n.Free(func(l Lease) bool { return l.Network == id })
}

// Free gives back the addresses that which picks.
func (n *Networks) Free(which func(Lease) bool) { n.Leases = slices.DeleteFunc(n.Leases, which) }

// LeasesOf are those of a container.
func (n *Networks) LeasesOf(vm string) []Lease {
	return selected(n.Leases, func(l Lease) bool { return l.VM == vm })
}

// LeasesIn are those in a network.
func (n *Networks) LeasesIn(network string) []Lease {
	return selected(n.Leases, func(l Lease) bool { return l.Network == network })
}

// Lease is that of a container in a network, nil for none.
func (n *Networks) Lease(network, vm string) *Lease {
	i := slices.IndexFunc(n.Leases, func(l Lease) bool { return l.Network == network && l.VM == vm })
	if i < 0 {
		return nil
	}
	return &n.Leases[i]
}

func selected(all []Lease, which func(Lease) bool) []Lease {
	var out []Lease
	for _, l := range all {
		if which(l) {
			out = append(out, l)
		}
	}
	return out
}

// hasNetworks reports whether a network was ever made.
func (s *Store) hasNetworks() bool {
	_, err := os.Lstat(s.networksPath())
	return !missing(err)
}

// Taken reports whether an address of the network is the gateway's, reserved, or
// a container's other than vm.
func (n *Networks) Taken(r *NetworkRecord, a netip.Addr, vm string) bool {
	return r.Keeps(a) || slices.ContainsFunc(n.Leases, func(l Lease) bool {
		return l.Network == r.ID && l.VM != vm && (l.Address == a || l.Address6 == a)
	})
}

// Keeps reports whether an address is no container's: the gateway's, or reserved.
func (r *NetworkRecord) Keeps(a netip.Addr) bool {
	if a == r.Gateway || a == r.Gateway6 {
		return true
	}
	for _, reserved := range r.Reserved {
		if a == reserved {
			return true
		}
	}
	return false
}
