package usernet

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

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
// to fit the packet socket of a TAP device, which loses what does not: see roomOf.
const wideStreams = 8

// roomFor is how many of wideStreams a packet socket can bear whose buffer has so many
// bytes. A window is half of a wideBuffer; the other half is for what the kernel counts
// with a frame, almost as much as is in it if it is small. Pure.
func roomFor(buffer int) int64 { return int64(min(buffer/wideBuffer, wideStreams)) }

// roomOf is roomFor of a link that is a packet socket. Any other waits for who reads.
func roomOf(link *os.File) (room int64, err error) {
	raw, err := link.SyscallConn()
	if err != nil {
		return 0, err
	}
	room = wideStreams
	cerr := raw.Control(func(fd uintptr) {
		var domain, buffer int
		domain, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if errors.Is(err, unix.ENOTSOCK) {
			err = nil
		}
		if err != nil || domain != unix.AF_PACKET {
			return
		}
		if buffer, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
			room = roomFor(buffer)
		}
	})
	return room, errors.Join(err, cerr)
}

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
