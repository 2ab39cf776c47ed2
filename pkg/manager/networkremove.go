package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/state"
)

// RemoveNetwork removes a network that no container runs in. Containers that do
// not run lose their addresses in it, and cannot be started while there is no
// network of its name.
func (m *Manager) RemoveNetwork(ctx context.Context, ref string) error {
	w, err := m.InspectNetwork(ctx, ref)
	if err != nil {
		return err
	}
	if w.Predefined {
		return wordedf(ErrConflict, "%s is a pre-defined network and cannot be removed", w.Name)
	}
	return m.removeNetwork(w.ID, func(state.NetworkRecord, *state.Networks) error { return nil })
}

// removeNetwork removes a network if nobody runs in it and check agrees. Who
// starts takes his address under the same lock, and finds no network then.
func (m *Manager) removeNetwork(id string, check func(state.NetworkRecord, *state.Networks) error) error {
	var gone state.NetworkRecord
	err := m.state.ChangeNetworks(func(n *state.Networks) error {
		r, err := n.Find(id)
		if err != nil {
			return networkError(err, id[:12])
		}
		gone = *r
		members, err := m.members(n, gone)
		if err != nil {
			return err
		}
		if len(members) > 0 {
			return wordedf(ErrConflict, "error while removing network: network %s has active endpoints (%s)", gone.Name, endpoints(members))
		}
		if err := check(gone, n); err != nil {
			return err
		}
		n.Drop(gone.ID)
		return nil
	})
	if err == nil {
		m.tellNetwork(events.ActionDestroy, gone)
	}
	return err
}

// endpoints names members in docker's way.
func endpoints(members []NetworkMember) string {
	var out []string
	for _, c := range members {
		out = append(out, fmt.Sprintf("name:%q id:%q", c.Name, c.ID[:12]))
	}
	return strings.Join(out, ", ")
}

// PruneNetworks removes the networks that choose picks and that no container is
// to be in, and returns their names.
func (m *Manager) PruneNetworks(ctx context.Context, choose func(NamedNetwork) bool) ([]string, error) {
	all, err := m.Networks(ctx)
	if err != nil {
		return nil, err
	}
	var done []string
	for _, w := range all {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		if w.Predefined || w.Used || !choose(w) {
			continue
		}
		err := m.removeNetwork(w.ID, m.unused)
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
			continue // somebody uses it now, or has removed it
		}
		if err != nil {
			return done, err
		}
		done = append(done, w.Name)
	}
	slices.Sort(done)
	m.tell(events.Network(events.ActionPrune, events.Subject{}, "reclaimed", "0"))
	return done, nil
}

// unused refuses to remove a network that a container is to be in.
func (m *Manager) unused(r state.NetworkRecord, _ *state.Networks) error {
	used, err := m.usedNetworks()
	if err == nil && (used[r.ID] || used[r.Name]) {
		err = wordedf(ErrConflict, "network %s is in use", r.Name)
	}
	return err
}
