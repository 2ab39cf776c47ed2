package manager

import (
	"strings"

	"github.com/micropod/micropod/pkg/network/bridge"
)

// checkBridge tells whether there are bridge networks, and what of the host's own
// rules is in their way.
func checkBridge() Check {
	c := Check{Name: "bridge networks"}
	if err := bridge.Available(); err != nil {
		c.Detail = err.Error() + "; user mode works without"
		return c
	}
	c.OK, c.Detail = true, "devices, rules and routes can be made"
	drops, err := bridge.Drops()
	switch {
	case err != nil:
		c.OK, c.Detail = false, err.Error()
	case len(drops) > 0:
		c.OK, c.Detail = false, "another firewall drops what is forwarded: "+strings.Join(drops, ", ")
		c.Fix = "accept there what comes from devices mp-*, and answers to them"
	}
	return c
}
