package manager

import (
	"fmt"

	"github.com/micropod/micropod/pkg/health"
	"github.com/micropod/micropod/pkg/image"
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

// addHealth adds what is known of a container's health.
func (m *Manager) addHealth(c *Container) error {
	if health.Command(c.Healthcheck, c.Shell) == nil {
		return nil
	}
	h, err := m.state.ReadHealth(c.ID)
	if err != nil || h == nil {
		return err
	}
	if c.State != StateRunning && c.State != StatePaused {
		*h = health.End(*h) // also after a supervisor that was lost
	}
	c.Health = h
	return nil
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
