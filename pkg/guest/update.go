package guest

import (
	"fmt"
	"path/filepath"

	"github.com/micropod/micropod/pkg/agent/api"
)

// update changes the limits of a container that runs.
func (a *agent) update(r api.UpdateRequest) error {
	p, err := a.container(r.ID)
	if err != nil {
		return err
	}
	for file, value := range cgroupFiles(r.Resources) {
		if err := writeFile(filepath.Join(p.cgroup.dir, file), value); err != nil {
			return internal("cgroup", fmt.Errorf("set %s to %s: %w", file, value, err))
		}
	}
	return nil
}
