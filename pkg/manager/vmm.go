package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// vmmAuto is the VMM of a container whose user did not choose one.
const vmmAuto = "auto"

// choose picks the VMM for a VM. "auto" is the first usable driver in order of
// preference; anything else is that one or an error, never another one.
func (m *Manager) choose(ctx context.Context, want string) (state.Driver, error) {
	var reasons []string
	var skipped []string
	for _, d := range m.o.Drivers {
		if want != vmmAuto && want != d.Name() {
			continue
		}
		a := d.Probe(ctx)
		if a.OK {
			reason := a.Reason
			if len(skipped) > 0 {
				reason += "; not usable here: " + strings.Join(skipped, ", ")
			}
			return state.Driver{Name: d.Name(), Version: a.Version, Accel: a.Accel, Reason: reason}, nil
		}
		skipped = append(skipped, d.Name())
		reasons = append(reasons, unavailable(d.Name(), a))
	}
	if len(reasons) == 0 {
		return state.Driver{}, fmt.Errorf("%w: no VMM is called %q (auto, firecracker or qemu)", ErrInvalid, want)
	}
	return state.Driver{}, fmt.Errorf("%w: %w", vmm.ErrUnavailable, errors.New(strings.Join(reasons, "; ")))
}

func unavailable(name string, a vmm.Availability) string {
	s := name + ": " + a.Reason
	if a.Fix != "" {
		s += " (" + a.Fix + ")"
	}
	return s
}
