package state

import "time"

// Healthcheck is how a container is asked whether it is well, by docker's names.
// A zero duration or number is docker's default.
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", ARG...} or {"CMD-SHELL", COMMAND}.
	Test          []string      `json:"test,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// HealthStatus is what the checks of a container say.
type HealthStatus string

// Statuses, in docker's words.
const (
	HealthStarting  HealthStatus = "starting"
	HealthHealthy   HealthStatus = "healthy"
	HealthUnhealthy HealthStatus = "unhealthy"
)

// Health is what is known of a container's health.
type Health struct {
	Version       int            `json:"version"`
	Status        HealthStatus   `json:"status"`
	FailingStreak int            `json:"failingStreak"`
	Log           []HealthResult `json:"log,omitempty"` // the last ones, oldest first
}

// HealthResult is one check. Output is the guest's text.
type HealthResult struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"` // -1: it could not be run, or took too long
	Output   string    `json:"output"`
}

// ReadHealth reads a container's health; nil without an error when it was never
// asked for.
func (s *Store) ReadHealth(id string) (*Health, error) {
	var h Health
	err := readJSON(s.Paths(id).Health(), &h)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &h, nil
}

// WriteHealth replaces a container's health. Only the holder of the container's
// alive lock may call it.
func WriteHealth(p Paths, h Health) error {
	h.Version = schemaVersion
	return writeJSON(p.Health(), h)
}
