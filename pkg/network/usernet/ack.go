package usernet

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ackDelay is how long an acknowledgment waits for another segment of its connection
// that can tell the same. RFC 9293, 3.8.6.3, allows half a second; a program whose
// next bytes wait for it (Nagle's algorithm) loses no more than this.
const ackDelay = 2 * time.Millisecond

// acks delays acknowledgments, which the stack itself sends at once: the answer of a
// program is often there by then, and a guest spends more on one more frame than on
// all else that it does about a short question. At most one waits, of one connection;
// the second in turn goes at once, as that RFC asks for. Safe for concurrent use.
type acks struct {
	send func(*stack.PacketBuffer) // what has waited long enough

	mu    sync.Mutex
	held  *stack.PacketBuffer // nil: none
	conn  connection          // of held
	since time.Time           // of held
	timer *time.Timer         // runs while armed
	armed bool
}

// connection is what the headers of a TCP segment say of its two ends: the protocol
// below it, addresses, ports.
type connection struct {
	network tcpip.NetworkProtocolNumber
	addrs   [32]byte
	ports   [4]byte
}

// connectionOf returns false for what is no segment of a connection.
func connectionOf(pkt *stack.PacketBuffer) (c connection, tcp header.TCP, ok bool) {
	tcp = header.TCP(pkt.TransportHeader().Slice())
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber || len(tcp) < header.TCPMinimumSize {
		return c, nil, false
	}
	ip := pkt.NetworkHeader().Slice()
	switch {
	case pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(ip) >= header.IPv4MinimumSize:
		copy(c.addrs[:], ip[12:20])
	case pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(ip) >= header.IPv6MinimumSize:
		copy(c.addrs[:], ip[8:40])
	default:
		return c, nil, false
	}
	c.network = pkt.NetworkProtocolNumber
	copy(c.ports[:], tcp)
	return c, tcp, true
}

// plain reports whether a segment says nothing but what has arrived in order: the
// timestamps of RFC 7323 are its only option, so it tells of no gap.
func plain(pkt *stack.PacketBuffer, tcp header.TCP) bool {
	if tcp.Flags() != header.TCPFlagAck || pkt.Data().Size() > 0 {
		return false
	}
	options := tcp[header.TCPMinimumSize:]
	// As the stack writes them, and appendix A of that RFC: behind two bytes of padding.
	return len(options) == 0 || len(options) == 12 && options[2] == header.TCPOptionTS
}

// hold decides about a segment that the stack sends: true if it waits, and is not to
// be sent now.
func (a *acks) hold(pkt *stack.PacketBuffer) bool {
	conn, tcp, ok := connectionOf(pkt)
	if !ok {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	other := a.held != nil && a.conn != conn
	if a.held != nil && !other {
		a.supersede(tcp, plain(pkt, tcp))
		return false
	}
	if !plain(pkt, tcp) {
		return false
	}
	if other {
		a.let()
	}
	a.held, a.conn, a.since = pkt.Clone(), conn, time.Now()
	a.arm(ackDelay)
	return true
}

// supersede drops the one that waits if the segment that goes now tells the same, and
// sends it before that otherwise. Of duplicates none is dropped: to a guest without RFC
// 2018 their number tells of a gap (RFC 5681, 3.2).
func (a *acks) supersede(next header.TCP, empty bool) {
	waits := header.TCP(a.held.TransportHeader().Slice())
	tells := next.Flags().Contains(header.TCPFlagAck) && !seqnum.Value(next.AckNumber()).LessThan(seqnum.Value(waits.AckNumber()))
	duplicate := empty && next.AckNumber() == waits.AckNumber() && next.WindowSize() == waits.WindowSize()
	if !tells || duplicate {
		a.let()
		return
	}
	a.held.DecRef()
	a.held = nil
}

// let sends the one that waits.
func (a *acks) let() {
	a.send(a.held)
	a.held.DecRef()
	a.held = nil
}

// arm has fire called after d, unless it will be called anyway.
func (a *acks) arm(d time.Duration) {
	switch {
	case a.armed:
		return
	case a.timer == nil:
		a.timer = time.AfterFunc(d, a.fire)
	default:
		a.timer.Reset(d)
	}
	a.armed = true
}

// fire sends what has waited long enough. The timer is not stopped for what did not
// have to wait so long, as that would be done for each segment.
func (a *acks) fire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = false
	if a.held == nil {
		return
	}
	if rest := ackDelay - time.Since(a.since); rest > 0 {
		a.arm(rest)
		return
	}
	a.let()
}
