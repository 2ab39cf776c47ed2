package manager

import "github.com/micropod/micropod/pkg/supervisor"

// Supervise is the life of the process that Start spawns: it returns when the
// VM of the container with this id has ended and everything is freed.
func (m *Manager) Supervise(id string) error { return supervisor.Run(m.state, m.o.Drivers, id) }
