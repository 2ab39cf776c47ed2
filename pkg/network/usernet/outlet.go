package usernet

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// segments and others are how many frames wait for a guest that is slow:
	// those with bytes of TCP connections, and the rest.
	segments = 64
	others   = 128
	// patience is how long the stack waits for a guest that takes nothing.
	patience = 2 * time.Second
)

// outlet is where the stack leaves its frames for the guest. Those with bytes of
// a TCP connection wait for room: all connections together have more under way
// than a queue should hold, and each burst that is lost costs a connection a
// timeout. The others are lost beyond their room, as on any link, and never wait:
// the goroutine that takes the guest's frames sends such ones, and two ends that
// wait for each other would do so for ever.
//
// Who waits holds a lock of its connection. So nobody waits for a guest that has
// taken nothing for some time: it is paused, or has put its NIC down.
type outlet struct {
	*channel.Endpoint
	segments, others chan struct{} // one for each frame in the channel
	done             <-chan struct{}
	patience         time.Duration
	taken            atomic.Uint64 // frames
	stuck            atomic.Bool   // nothing was taken in the time of patience
	acks             acks
}

// newOutlet makes an outlet whose frames have at most mtu bytes after their
// header. Nobody waits after ctx has ended.
func newOutlet(ctx context.Context, mtu int, mac net.HardwareAddr) *outlet {
	o := &outlet{
		Endpoint: channel.New(segments+others, uint32(mtu)+header.EthernetMinimumSize, tcpip.LinkAddress(mac)),
		segments: make(chan struct{}, segments), others: make(chan struct{}, others),
		done: ctx.Done(), patience: patience,
	}
	o.acks.send = func(pkt *stack.PacketBuffer) { o.write(pkt) }
	return o
}

// WritePackets implements stack.LinkEndpoint.
func (o *outlet) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, pkt := range pkts.AsSlice() {
		if o.acks.hold(pkt) {
			n++
			continue
		}
		wrote, err := o.write(pkt)
		if err != nil {
			return n, err
		}
		n += wrote
	}
	return n, nil
}

// write leaves one frame for the guest, or loses it.
func (o *outlet) write(pkt *stack.PacketBuffer) (int, tcpip.Error) {
	if !o.admit(pkt) {
		return 0, nil
	}
	var one stack.PacketBufferList
	one.PushBack(pkt)
	return o.Endpoint.WritePackets(one)
}

// admit takes a frame's room; false if the frame is lost.
func (o *outlet) admit(pkt *stack.PacketBuffer) bool {
	room := o.room(pkt)
	select {
	case room <- struct{}{}:
		return true
	default:
		return room == o.segments && o.await()
	}
}

// await waits for the room of a segment.
func (o *outlet) await() bool {
	timer := time.NewTimer(o.patience)
	defer timer.Stop()
	for !o.stuck.Load() {
		before := o.taken.Load()
		select {
		case o.segments <- struct{}{}:
			return true
		case <-o.done:
			return false
		case <-timer.C:
			if o.taken.Load() == before {
				o.stuck.Store(true)
			}
			timer.Reset(o.patience)
		}
	}
	return false
}

// room is where a frame counts.
func (o *outlet) room(pkt *stack.PacketBuffer) chan struct{} {
	if pkt.TransportProtocolNumber == header.TCPProtocolNumber && pkt.Data().Size() > 0 {
		return o.segments
	}
	return o.others
}

// next waits for a frame; nil when ctx has ended.
func (o *outlet) next(ctx context.Context) *stack.PacketBuffer {
	pkt := o.ReadContext(ctx)
	if pkt != nil {
		<-o.room(pkt)
	}
	return pkt
}

// took says that the guest's link has taken a frame, or refused it.
func (o *outlet) took() {
	o.taken.Add(1)
	o.stuck.Store(false)
}
