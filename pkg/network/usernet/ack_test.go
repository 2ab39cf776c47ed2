package usernet

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// segment is one that the stack sends to the guest's port.
type segment struct {
	port    uint16
	ack     uint32
	flags   header.TCPFlags
	options []byte
	window  uint16
	data    string
	v6      bool
}

func (s segment) packet() *stack.PacketBuffer {
	size := header.TCPMinimumSize + len(s.options)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize + size, Payload: buffer.MakeWithData([]byte(s.data)),
	})
	tcp := header.TCP(pkt.TransportHeader().Push(size))
	copy(tcp[header.TCPMinimumSize:], s.options)
	tcp.Encode(&header.TCPFields{
		SrcPort: 80, DstPort: s.port, AckNum: s.ack, Flags: s.flags | header.TCPFlagAck, DataOffset: uint8(size),
		WindowSize: s.window,
	})
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	if s.v6 {
		pkt.NetworkHeader().Push(header.IPv6MinimumSize)
		pkt.NetworkProtocolNumber = header.IPv6ProtocolNumber
	} else {
		pkt.NetworkHeader().Push(header.IPv4MinimumSize)
		pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	}
	return pkt
}

// queued are the segments in an outlet, by port and acknowledgment.
func queued(o *outlet) (out []string) {
	for pkt := o.Read(); pkt != nil; pkt = o.Read() {
		tcp := header.TCP(pkt.TransportHeader().Slice())
		out = append(out, fmt.Sprint(tcp.DestinationPort(), " ", tcp.AckNumber()))
		pkt.DecRef()
	}
	return out
}

func TestAcks(t *testing.T) {
	times := append([]byte{1, 1, 8, 10}, make([]byte, 8)...)
	gap := append([]byte{1, 1, 5, 10}, make([]byte, 8)...) // one block of RFC 2018
	for name, c := range map[string]struct {
		sent []segment
		want []string // at once
		held string   // after a time
	}{
		"one waits":                     {sent: []segment{{port: 1, ack: 5}}, held: "1 5"},
		"with timestamps":               {sent: []segment{{port: 1, ack: 5, options: times}}, held: "1 5"},
		"IPv6":                          {sent: []segment{{port: 1, ack: 5, v6: true}}, held: "1 5"},
		"bytes tell the same":           {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 5, data: "x"}}, want: []string{"1 5"}},
		"so does the end":               {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 6, flags: header.TCPFlagFin}}, want: []string{"1 6"}},
		"across zero":                   {sent: []segment{{port: 1, ack: 1<<32 - 1}, {port: 1, ack: 3, data: "x"}}, want: []string{"1 3"}},
		"every second goes":             {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 6}, {port: 1, ack: 7}}, want: []string{"1 6"}, held: "1 7"},
		"none of several alike is lost": {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 5}, {port: 1, ack: 5}}, want: []string{"1 5", "1 5"}, held: "1 5"},
		"a window tells the same":       {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 5, window: 9}}, want: []string{"1 5"}},
		"of an old one nothing waits":   {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 4, data: "x"}}, want: []string{"1 5", "1 4"}},
		"one connection waits":          {sent: []segment{{port: 1, ack: 5}, {port: 2, ack: 9}}, want: []string{"1 5"}, held: "2 9"},
		"another's bytes change none":   {sent: []segment{{port: 1, ack: 5}, {port: 2, ack: 9, data: "x"}}, want: []string{"2 9"}, held: "1 5"},
		"IPv6 is another":               {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 5, data: "x", v6: true}}, want: []string{"1 5"}, held: "1 5"},
		"a gap is told at once":         {sent: []segment{{port: 1, ack: 5, options: gap}}, want: []string{"1 5"}},
		"so is it after one that waits": {sent: []segment{{port: 1, ack: 5}, {port: 1, ack: 5, options: gap}}, want: []string{"1 5"}},
		"a handshake goes at once":      {sent: []segment{{port: 1, ack: 5, flags: header.TCPFlagSyn}}, want: []string{"1 5"}},
		"a reset goes at once":          {sent: []segment{{port: 1, ack: 5, flags: header.TCPFlagRst}}, want: []string{"1 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutlet(t.Context(), 1500, gatewayMAC)
			var list stack.PacketBufferList
			for _, s := range c.sent {
				list.PushBack(s.packet())
			}
			o.acks.armed = true // nothing goes by itself
			if n, err := o.WritePackets(list); n != len(c.sent) || err != nil {
				t.Errorf("%d packets, %v, want %d", n, err, len(c.sent))
			}
			if got := queued(o); !slices.Equal(got, c.want) {
				t.Errorf("at once: %q, want %q", got, c.want)
			}
			o.acks.since = time.Time{}
			o.acks.fire()
			if got := fmt.Sprint(queued(o)); got != "["+c.held+"]" {
				t.Errorf("later: %s, want [%s]", got, c.held)
			}
		})
	}
}

// What nobody supersedes goes by itself.
func TestAckGoes(t *testing.T) {
	o := newOutlet(t.Context(), 1500, gatewayMAC)
	for ack := range uint32(3) {
		var list stack.PacketBufferList
		list.PushBack(segment{port: 1, ack: ack}.packet())
		o.WritePackets(list)
		pkt := o.next(t.Context())
		if got := header.TCP(pkt.TransportHeader().Slice()).AckNumber(); got != ack {
			t.Fatalf("acknowledged %d, want %d", got, ack)
		}
		pkt.DecRef()
	}
}

// What is no TCP, or too short for it, is none of acks' business.
func TestAcksOfOthers(t *testing.T) {
	udp := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData([]byte("x"))})
	udp.TransportProtocolNumber = header.UDPProtocolNumber
	short := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 8})
	short.TransportHeader().Push(8)
	short.TransportProtocolNumber = header.TCPProtocolNumber
	noIP := segment{port: 1}.packet()
	noIP.NetworkProtocolNumber = tcpip.NetworkProtocolNumber(0x88cc)
	var a acks
	for name, pkt := range map[string]*stack.PacketBuffer{"UDP": udp, "a short one": short, "another network protocol": noIP} {
		if a.hold(pkt) {
			t.Errorf("%s waits", name)
		}
	}
}
