package manager

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/state"
	"github.com/moby/sys/signal"
)

// filter tells whether one value of a filter holds for a container.
type filter func(c *Container, value string, all []Container) bool

// filters are those of docker ps that mean something here.
func filters() map[string]filter {
	return map[string]filter{
		"id": func(c *Container, v string, _ []Container) bool { return strings.HasPrefix(c.ID, v) },
		"name": func(c *Container, v string, _ []Container) bool {
			re, err := regexp.Compile(v)
			// Docker's users write ^/name$ too: its names begin with a slash.
			return err == nil && (re.MatchString(c.Name) || re.MatchString("/"+c.Name))
		},
		"label": func(c *Container, v string, _ []Container) bool {
			k, want, exact := strings.Cut(v, "=")
			got, ok := c.Labels[k]
			return ok && (!exact || got == want)
		},
		"status": func(c *Container, v string, _ []Container) bool { return string(c.State) == v },
		"health": func(c *Container, v string, _ []Container) bool { return healthWord(c) == v },
		"ancestor": func(c *Container, v string, _ []Container) bool {
			id := strings.TrimPrefix(c.ImageID, "sha256:")
			return untagged(c.Image) == untagged(v) || c.ImageID == v || len(v) >= 4 && strings.HasPrefix(id, v)
		},
		"network": func(c *Container, v string, _ []Container) bool {
			if len(c.Attachments) == 0 {
				return v == NetworkNone || strings.HasPrefix(modeID(NetworkNone), v)
			}
			return slices.ContainsFunc(c.Attachments, func(a NetworkAttachment) bool {
				id := a.Network
				if !recorded(a) {
					id = modeID(id)
				}
				return a.Name == v || len(v) >= 4 && strings.HasPrefix(id, v)
			})
		},
		"exited": func(c *Container, v string, _ []Container) bool {
			code, err := strconv.Atoi(v)
			return err == nil && c.State == StateExited && c.ExitCode == code
		},
		"before": func(c *Container, v string, all []Container) bool {
			o := named(all, v)
			return o != nil && c.Created.Before(o.Created)
		},
		"since": func(c *Container, v string, all []Container) bool {
			o := named(all, v)
			return o != nil && c.Created.After(o.Created)
		},
	}
}

// untagged is an image without the tag that may be left out.
func untagged(ref string) string { return strings.TrimSuffix(ref, ":latest") }

func named(all []Container, ref string) *Container {
	i := slices.IndexFunc(all, func(c Container) bool { return c.Name == ref || ref != "" && strings.HasPrefix(c.ID, ref) })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// checkFilters refuses what would otherwise silently select nothing.
func checkFilters(given map[string][]string) error {
	known := filters()
	for key, values := range given {
		if known[key] == nil {
			return fmt.Errorf("%w: invalid filter %q", ErrInvalid, key)
		}
		for _, v := range values {
			if err := checkFilter(key, v); err != nil {
				return fmt.Errorf("%w: filter %s=%s: %w", ErrInvalid, key, v, err)
			}
		}
	}
	return nil
}

// checkNeighbours refuses before and since of a container that is not there.
func checkNeighbours(all []Container, given map[string][]string) error {
	for _, v := range slices.Concat(given["before"], given["since"]) {
		if named(all, v) == nil {
			return fmt.Errorf("%w: %s", ErrNotFound, v)
		}
	}
	return nil
}

func checkFilter(key, v string) error {
	var err error
	switch key {
	case "name":
		_, err = regexp.Compile(v)
	case "exited":
		_, err = strconv.Atoi(v)
	case "health":
		words := []string{string(state.HealthStarting), string(state.HealthHealthy), string(state.HealthUnhealthy), healthNone}
		if !slices.Contains(words, v) {
			err = fmt.Errorf("the words are %v", words)
		}
	case "status":
		states := []State{StateCreated, StateStarting, StateRunning, StatePaused, StateRestarting, StateExited, StateBroken}
		if !slices.Contains(states, State(v)) {
			err = fmt.Errorf("the states are %v", states)
		}
	}
	return err
}

// selectContainers applies the options of a listing. Pure.
func selectContainers(all []Container, o ListOptions) ([]Container, error) {
	known := filters()
	byState := len(o.Filters["status"]) > 0 || len(o.Filters["exited"]) > 0
	var out []Container
	for i := range all {
		c := &all[i]
		active := c.State != StateCreated && c.State != StateExited
		if !o.All && o.Last == 0 && !byState && !active {
			continue
		}
		if !holds(c, o.Filters, known, all) {
			continue
		}
		out = append(out, *c)
	}
	if o.Last > 0 && len(out) > o.Last {
		out = out[:o.Last]
	}
	return out, nil
}

func holds(c *Container, given map[string][]string, known map[string]filter, all []Container) bool {
	for key, values := range given {
		match := func(v string) bool { return known[key](c, v, all) }
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

// signalName is the name of a signal's number, "SIGTERM" for 15.
func signalName(n int) string {
	for name, s := range signal.SignalMap {
		if int(s) == n && !strings.HasPrefix(name, "RT") {
			return "SIG" + name
		}
	}
	return strconv.Itoa(n)
}
