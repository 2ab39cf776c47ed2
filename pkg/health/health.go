// Package health is docker's HEALTHCHECK as a state machine: what a result
// changes, and when the next check is due. It runs nothing and knows no clock;
// whoever watches a container does (pkg/supervisor).
package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/micropod/micropod/pkg/state"
)

// Docker's defaults.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
)

// Bounds of what is kept.
const (
	maxResults = 5
	maxOutput  = 4096 // bytes of one result
)

// minimum of every duration, as docker has it.
const minimum = time.Millisecond

// Check refuses what docker refuses, in its words.
func Check(h *state.Healthcheck) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < minimum {
			return fmt.Errorf("%s in Healthcheck cannot be less than %v", d.name, minimum)
		}
	}
	if h.Retries < 0 {
		return fmt.Errorf("%s in Healthcheck cannot be negative", "Retries")
	}
	return nil
}

// Merge is the check of a user over that of the image: what the user does not
// say, the image decides. Either may be nil.
func Merge(user, image *state.Healthcheck) *state.Healthcheck {
	if user == nil || image == nil {
		if user == nil {
			user = image
		}
		return user
	}
	m := *user
	if len(m.Test) == 0 {
		m.Test = image.Test
	}
	for _, d := range []struct {
		value *time.Duration
		below time.Duration
	}{{&m.Interval, image.Interval}, {&m.Timeout, image.Timeout}, {&m.StartPeriod, image.StartPeriod}, {&m.StartInterval, image.StartInterval}} {
		if *d.value == 0 {
			*d.value = d.below
		}
	}
	if m.Retries == 0 {
		m.Retries = image.Retries
	}
	return &m
}

// Command is what a check executes, nil for none. shell is the image's, for
// CMD-SHELL; nil is docker's.
func Command(h *state.Healthcheck, shell []string) []string {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	switch h.Test[0] {
	case "CMD":
		return h.Test[1:]
	case "CMD-SHELL":
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return slices.Concat(shell, h.Test[1:])
	}
	return nil
}

// Timeout of one check.
func Timeout(c state.Healthcheck) time.Duration { return either(c.Timeout, defaultTimeout) }

// Begin is the health of a container that starts, with the results that were
// there.
func Begin(before *state.Health) state.Health {
	h := state.Health{Status: state.HealthStarting}
	if before != nil {
		h.Log = before.Log
	}
	return h
}

// End is the health of a container that is not looked at any more: docker calls
// it unhealthy.
func End(h state.Health) state.Health {
	h.Status = state.HealthUnhealthy
	return h
}

// Delay is how long after the last check, or after the start, the next one
// begins. age is that of the container.
func Delay(c state.Healthcheck, h state.Health, age time.Duration) time.Duration {
	if age < c.StartPeriod && h.Status == state.HealthStarting {
		return either(c.StartInterval, defaultStartInterval)
	}
	return either(c.Interval, defaultInterval)
}

// Next is the health after a result of a container that started at a time.
func Next(c state.Healthcheck, h state.Health, r state.HealthResult, started time.Time) state.Health {
	h.Log = append(slices.Clone(h.Log), r)
	h.Log = h.Log[max(0, len(h.Log)-maxResults):]
	if r.ExitCode == 0 {
		h.Status, h.FailingStreak = state.HealthHealthy, 0
		return h
	}
	if h.Status == state.HealthStarting && r.Start.Sub(started) < c.StartPeriod {
		return h // it may take its time
	}
	h.FailingStreak++
	retries := c.Retries
	if retries <= 0 {
		retries = defaultRetries
	}
	if h.FailingStreak >= retries {
		h.Status = state.HealthUnhealthy
	}
	return h
}

func either(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Output collects what a check prints, the beginning of it. Not safe for
// concurrent use.
type Output struct {
	kept      []byte
	truncated bool
}

// Add takes a piece.
func (o *Output) Add(b []byte) {
	n := min(len(b), maxOutput-len(o.kept))
	o.kept = append(o.kept, b[:n]...)
	o.truncated = o.truncated || n < len(b)
}

// String is the output; "..." says that there was more.
func (o *Output) String() string {
	text := strings.ToValidUTF8(string(o.kept), "\ufffd")
	if o.truncated {
		text += "..."
	}
	return text
}

// TimedOut is the result of a check that took too long.
func TimedOut(c state.Healthcheck, o *Output) state.HealthResult {
	text := fmt.Sprintf("Health check exceeded timeout (%v)", Timeout(c))
	if out := o.String(); out != "" {
		text += ": " + out
	}
	return state.HealthResult{ExitCode: -1, Output: text}
}
