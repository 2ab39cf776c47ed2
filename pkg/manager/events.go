package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/state"
)

// Event is something that happened to a container or an image.
type Event = events.Event

// EventOptions select events.
type EventOptions struct {
	// Since is the time of the first event; zero is now: nothing that is past.
	Since time.Time
	// Until is the time after the last event; zero is never.
	Until time.Time
	// Filters as of docker events: container, image, network, event, type, label,
	// scope.
	// Values of a key are alternatives (all of them must hold for label), keys
	// must all hold.
	Filters map[string][]string
}

// Events calls each with what happens, until o.Until has come, ctx ends or each
// fails.
func (m *Manager) Events(ctx context.Context, o EventOptions, each func(Event) error) error {
	known := eventFilters()
	for key := range o.Filters {
		if known[key] == nil {
			return fmt.Errorf("%w: invalid filter %q", ErrInvalid, key)
		}
	}
	return m.journal.Read(ctx, events.Options{Since: o.Since, Until: o.Until}, func(e Event) error {
		if !eventHolds(e, o.Filters, known) {
			return nil
		}
		return each(e)
	})
}

// EventFilters are the keys of EventOptions.Filters, with their values where not
// any is possible.
func EventFilters() map[string][]string {
	filters := map[string][]string{}
	for key := range eventFilters() {
		filters[key] = nil
	}
	filters["type"] = []string{string(events.TypeContainer), string(events.TypeImage), string(events.TypeNetwork)}
	return filters
}

// eventFilters tell whether one value of a filter holds for an event.
func eventFilters() map[string]func(e Event, v string) bool {
	return map[string]func(e Event, v string) bool{
		"type":  func(e Event, v string) bool { return string(e.Type) == v },
		"event": func(e Event, v string) bool { return e.Is(events.Action(v)) },
		"scope": func(_ Event, v string) bool { return v == "local" },
		"network": func(e Event, v string) bool {
			return e.Type == events.TypeNetwork && (strings.HasPrefix(e.ID, v) || strings.HasPrefix(e.Attributes["name"], v))
		},
		"container": func(e Event, v string) bool {
			return strings.HasPrefix(e.ID, v) || strings.HasPrefix(e.Attributes["name"], v)
		},
		"image": func(e Event, v string) bool {
			name := e.Attributes["image"]
			if e.Type == events.TypeImage {
				name = e.Attributes["name"]
			}
			return slices.Contains([]string{e.ID, withoutTag(e.ID), name, withoutTag(name)}, v)
		},
		"label": func(e Event, v string) bool {
			k, want, exact := strings.Cut(v, "=")
			got, ok := e.Attributes[k]
			return ok && (!exact || got == want)
		},
	}
}

// withoutTag is a name without its tag; a port is none.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

func eventHolds(e Event, given map[string][]string, known map[string]func(Event, string) bool) bool {
	for key, values := range given {
		match := func(v string) bool { return known[key](e, v) }
		if key == "label" {
			if slices.ContainsFunc(values, func(v string) bool { return !match(v) }) {
				return false
			}
		} else if !slices.ContainsFunc(values, match) {
			return false
		}
	}
	return true
}

// tell writes an event. No operation fails because nobody will hear of it.
func (m *Manager) tell(e Event) {
	if err := m.journal.Write(e); err != nil {
		m.log.Error("an event is lost", "action", string(e.Action), "err", err)
	}
}

// tellContainer tells what happened to a container.
func (m *Manager) tellContainer(a events.Action, vm state.VM, attributes ...string) {
	m.tell(events.Container(a, m.subject(vm), attributes...))
}

// subject is a container as events name it. What is to be told of its removal is
// to be asked for before that.
func (m *Manager) subject(vm state.VM) events.Subject {
	s := events.Subject{ID: vm.ID, Name: vm.Name, Image: vm.Image}
	if c, err := m.state.ReadConfig(vm.ID); err == nil {
		s.Labels = c.Labels
	}
	return s
}

// tellImage tells what happened to an image. id may be a name, of what is
// pulled and pushed.
func (m *Manager) tellImage(a events.Action, id, name string, labels map[string]string) {
	m.tell(events.Image(a, events.Subject{ID: id, Name: name, Labels: labels}))
}

// tellTransfer tells of a pull or a push, by name as docker does; of an archive
// or a layout, that it was loaded.
func (m *Manager) tellTransfer(a events.Action, ref string, img *image.Image) {
	if image.IsLocal(ref) {
		m.tellImage(events.ActionLoad, img.ID, img.ID, img.Config.Config.Labels)
		return
	}
	name, err := image.Normalize(ref)
	if err != nil {
		name = ref
	}
	m.tellImage(a, name, withoutTag(name), img.Config.Config.Labels)
}

// tellTagged tells that an image has a name.
func (m *Manager) tellTagged(name string) {
	if img, err := m.images.Get(name); err == nil {
		m.tellImage(events.ActionTag, img.ID, name, img.Config.Config.Labels)
	}
}

// tellNamed tells what happened to the image that goes by a name or id.
func (m *Manager) tellNamed(a events.Action, ref string) {
	if img, err := m.images.Get(ref); err == nil {
		m.tellImage(a, img.ID, img.ID, img.Config.Config.Labels)
	}
}

// tellRemoved tells of names and images that are gone.
func (m *Manager) tellRemoved(r image.Removed) {
	for range r.Untagged {
		m.tellImage(events.ActionUntag, r.ID, r.ID, nil)
	}
	for _, id := range r.Deleted {
		m.tellImage(events.ActionDelete, id, id, nil)
	}
}
