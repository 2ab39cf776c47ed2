package portmux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The frame of yamux: version, type, flags (2 bytes), stream id (4), length (4).
const headerSize = 12

const (
	typeData   = 0
	typeWindow = 1
	typePing   = 2
)

const (
	flagSYN = 1
	flagFIN = 4
	flagRST = 8
)

// role is an end of the session: which stream ids it opens, and how many
// streams each end may have open that it opened itself.
type role struct {
	odd       bool
	own, peer int
}

func hostRole() role  { return role{odd: true, own: maxOutbound, peer: maxInbound} }
func guestRole() role { return role{odd: false, own: maxInbound, peer: maxOutbound} }

func (r role) owns(id uint32) bool { return id%2 == 1 == r.odd }

var errProtocol = errors.New("peer broke the multiplexing protocol")

// guard sits between yamux and the byte stream. It reads along and ends the
// session where yamux trusts the other end: yamux answers each ping from a new
// goroutine, without a limit; it keeps a stream, with its buffer, until both
// ends have closed it; and it accepts a stream under an id of its own.
//
// It also joins the header and the body of a frame, which yamux writes apart,
// into one write: on virtio-serial each write is a trip through the VMM.
type guard struct {
	rw   io.ReadWriteCloser
	role role

	header [headerSize]byte // of the frame being read
	have   int              // bytes of header
	skip   uint32           // bytes of the frame's body still to come

	frame []byte // a header that waits for its body, then the frame

	mu      sync.Mutex
	streams map[uint32]uint16 // those that yamux holds: the sides that sent FIN
	own     int               // opened by this end, or about to be
	peer    int               // opened by the other end
}

const (
	finPeer uint16 = 1
	finSelf uint16 = 2
)

func newGuard(rw io.ReadWriteCloser, r role) *guard {
	return &guard{rw: rw, role: r, streams: make(map[uint32]uint16)}
}

// reserve takes the place of a stream that this end will open.
func (g *guard) reserve() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own >= g.role.own {
		return false
	}
	g.own++
	return true
}

func (g *guard) Close() error { return g.rw.Close() }

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.rw.Read(p)
	if e := g.check(p[:n]); e != nil {
		return 0, e
	}
	return n, err
}

// check follows the frames through p.
func (g *guard) check(p []byte) error {
	for len(p) > 0 {
		if g.skip > 0 {
			n := min(uint64(g.skip), uint64(len(p)))
			g.skip -= uint32(n)
			p = p[n:]
			continue
		}
		n := copy(g.header[g.have:], p)
		g.have += n
		p = p[n:]
		if g.have < headerSize {
			return nil
		}
		g.have = 0
		if err := g.checkHeader(); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) checkHeader() error {
	kind, flags, id, length := parse(g.header[:])
	switch kind {
	case typePing:
		return fmt.Errorf("%w: ping", errProtocol)
	case typeData:
		g.skip = length
	case typeWindow:
	default:
		return nil // yamux knows
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if flags&flagSYN != 0 {
		if _, open := g.streams[id]; open || id == 0 || g.role.owns(id) {
			return fmt.Errorf("%w: stream id %d", errProtocol, id)
		}
		if g.peer >= g.role.peer {
			return fmt.Errorf("%w: more than %d connections", errProtocol, g.role.peer)
		}
		g.streams[id] = 0
		g.peer++
	}
	g.ended(id, flags, finPeer)
	return nil
}

// ended notes that a side has closed a stream, as yamux does.
func (g *guard) ended(id uint32, flags, side uint16) {
	fins, ok := g.streams[id]
	if !ok {
		return
	}
	if flags&flagFIN != 0 {
		fins |= side
		g.streams[id] = fins
	}
	if flags&flagRST == 0 && fins != finPeer|finSelf {
		return
	}
	delete(g.streams, id)
	if g.role.owns(id) {
		g.own--
	} else {
		g.peer--
	}
}

// Write is called by yamux's one sending goroutine: a header, then its body if
// it has one.
func (g *guard) Write(p []byte) (int, error) {
	if len(g.frame) > 0 {
		g.frame = append(g.frame, p...)
		_, err := g.rw.Write(g.frame)
		g.frame = g.frame[:0]
		return len(p), err
	}
	kind, flags, id, length := parse(p)
	if kind == typeData && length > 0 {
		g.frame = append(g.frame, p...)
		return len(p), nil
	}
	if flags&(flagSYN|flagFIN|flagRST) != 0 && kind <= typeWindow {
		g.mu.Lock()
		if flags&flagSYN != 0 {
			g.streams[id] = 0 // reserved in own
		}
		g.ended(id, flags, finSelf)
		g.mu.Unlock()
	}
	return g.rw.Write(p)
}

func parse(h []byte) (kind byte, flags uint16, id, length uint32) {
	return h[1], binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
}
