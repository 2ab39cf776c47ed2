package manager

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/micropod/micropod/pkg/health"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/ledger"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
)

// Healthcheck, Health and HealthResult are kept as they are shown.
type (
	Healthcheck  = state.Healthcheck
	Health       = state.Health
	HealthResult = state.HealthResult
)

// resolveHealth puts the health check of the user and the image together.
func resolveHealth(c *state.Config, o CreateOptions, img *image.Image) error {
	docker, err := img.Docker()
	if err != nil {
		return imageError(err)
	}
	settings := docker.Config
	var own *state.Healthcheck
	if settings.Healthcheck != nil {
		h := state.Healthcheck(*settings.Healthcheck)
		own = &h
	}
	c.Healthcheck, c.Shell = health.Merge(o.Healthcheck, own), settings.Shell
	if err := health.Check(c.Healthcheck); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// healthPlan is what the supervisor is told of a container's check; nil for none.
func healthPlan(c *state.Config) *supervisor.HealthPlan {
	command := health.Command(c.Healthcheck, c.Shell)
	if command == nil {
		return nil
	}
	return &supervisor.HealthPlan{
		Check: *c.Healthcheck,
		Exec:  execRequest("", c, ExecOptions{Command: command}, &Streams{}),
	}
}

// addHealth adds what is known of a container's health. A record that cannot be
// read is as good as none: the next check writes a new one.
func (m *Manager) addHealth(c *Container) {
	if health.Command(c.Healthcheck, c.Shell) == nil {
		return
	}
	h, err := m.state.ReadHealth(c.ID)
	if err != nil {
		m.log.Warn("no health is shown", "container", c.ID, "err", err)
	}
	if err != nil || h == nil {
		return
	}
	if c.State != StateRunning && c.State != StatePaused {
		*h = health.End(*h) // also after a supervisor that was lost
	}
	c.Health = h
}

// checkHealth looks for a health record of a container that does not run and
// that nobody can read.
func (m *Manager) checkHealth(vm state.VM, add addFinding) {
	_, err := m.state.ReadHealth(vm.ID)
	if !errors.Is(err, state.ErrDamaged) {
		return
	}
	add(ledger.Record, m.state.Paths(vm.ID).Health(), err.Error(), "remove it", func(context.Context) error {
		l, err := m.state.Lock(vm.ID)
		if errors.Is(err, state.ErrLocked) || errors.Is(err, state.ErrNotFound) {
			return nil // its supervisor writes a new one, or it is no more
		}
		if err != nil {
			return err
		}
		defer l.Unlock()
		if _, err := m.state.ReadHealth(vm.ID); !errors.Is(err, state.ErrDamaged) {
			return nil
		}
		return os.RemoveAll(m.state.Paths(vm.ID).Health())
	})
}

// healthNone is the health of a container without checks.
const healthNone = "none"

// healthWord is a container's health as filters name it.
func healthWord(c *Container) string {
	if c.Health == nil {
		return healthNone
	}
	return string(c.Health.Status)
}

// humanHealth is what docker's STATUS column says of a container that runs.
func humanHealth(h *Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == state.HealthStarting:
		return " (health: starting)"
	}
	return fmt.Sprintf(" (%s)", h.Status)
}
