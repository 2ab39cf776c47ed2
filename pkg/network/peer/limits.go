package peer

import "github.com/micropod/micropod/pkg/network/relay"

// Limits are what others may have of a VM's guests at the same time. Each costs a
// descriptor of this process, and memory.
type Limits struct {
	Streams int // TCP connections
	Flows   int // UDP flows; one more ends another: see relay.Flows
}

// full are the limits where descriptors are no matter.
func full() Limits { return Limits{Streams: 512, Flows: 512} }

// limitsFor takes an eighth of the descriptors that the process may have: what the
// guests themselves have of it is more. Pure.
func limitsFor(files uint64) Limits {
	l := full()
	share := func(n int) int { return max(1, int(min(uint64(n), files/16))) }
	return Limits{share(l.Streams), share(l.Flows)}
}

// OwnLimits are those of this process.
func OwnLimits() Limits { return limitsFor(relay.OpenFiles()) }
