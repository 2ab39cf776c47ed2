package usernet

// limits are what a guest and its clients may have at the same time. Each costs
// a descriptor of this process, but for a client's UDP flow, and memory: see
// bufferSize.
type limits struct {
	streams     int // TCP connections from the guest
	flows       int // UDP flows from the guest
	clients     int // TCP connections to published ports
	clientFlows int // UDP flows to published ports
}

// wideStreams is how many TCP connections, of all kinds, may have a larger buffer
// than others. That costs memory; and what is in their windows at the same time has
// to fit the packet socket of a TAP device, which loses what does not.
const wideStreams = 8

func fullLimits() limits { return limits{streams: 512, flows: 1024, clients: 512, clientFlows: 512} }

// limitsFor leaves half of the descriptors that the process may have to all
// else than its networks: who controls the VM comes by one too. Pure.
func limitsFor(files uint64, networks int) limits {
	l := fullLimits()
	all := uint64(l.streams + l.flows + l.clients)
	own := files / 2 / uint64(max(1, networks))
	if own >= all {
		return l
	}
	share := func(n int) int { return max(1, int(uint64(n)*own/all)) }
	l.streams, l.flows, l.clients = share(l.streams), share(l.flows), share(l.clients)
	return l
}
