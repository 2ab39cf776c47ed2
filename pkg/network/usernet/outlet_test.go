package usernet

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/publish"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// frames are packets of one kind, numbered by their only byte.
func frames(proto tcpip.TransportProtocolNumber, numbers ...byte) stack.PacketBufferList {
	var list stack.PacketBufferList
	for _, b := range numbers {
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData([]byte{b})})
		pkt.TransportProtocolNumber = proto
		list.PushBack(pkt)
	}
	return list
}

func numbers(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i)
	}
	return out
}

// take reads n frames.
func take(t *testing.T, o *outlet, n int) (got []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range n {
		pkt := o.next(ctx)
		if pkt == nil {
			t.Fatalf("%d frames, want %d", len(got), n)
		}
		got = append(got, pkt.Data().AsRange().ToSlice()...)
		pkt.DecRef()
		o.took()
	}
	return got
}

// What carries a connection's bytes waits for room, and keeps its order.
func TestSegmentsWait(t *testing.T) {
	o := newOutlet(t.Context(), 1500, gatewayMAC)
	o.patience = time.Minute
	want := numbers(250)
	sent := make(chan int, 1)
	go func() {
		n, _ := o.WritePackets(frames(header.TCPProtocolNumber, want...))
		sent <- n
	}()
	if got := take(t, o, len(want)); !bytes.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if n := <-sent; n != len(want) {
		t.Errorf("%d frames sent, want %d", n, len(want))
	}
}

// All else has room of its own, is lost beyond it, and never waits.
func TestOthersDoNotWait(t *testing.T) {
	o := newOutlet(t.Context(), 1500, gatewayMAC)
	o.patience = time.Minute
	o.WritePackets(frames(header.TCPProtocolNumber, numbers(segments)...))
	if n, err := o.WritePackets(frames(header.UDPProtocolNumber, numbers(others+5)...)); n != others || err != nil {
		t.Errorf("sent %d, %v, want %d", n, err, others)
	}
	if got, want := take(t, o, segments+others), append(numbers(segments), numbers(others)...); !bytes.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if n, _ := o.WritePackets(frames(header.UDPProtocolNumber, 1)); n != 1 {
		t.Error("no room after all were taken")
	}
}

// A guest that takes nothing is waited for once, until it takes something again.
func TestImpatience(t *testing.T) {
	o := newOutlet(t.Context(), 1500, gatewayMAC)
	o.patience = time.Millisecond
	if n, _ := o.WritePackets(frames(header.TCPProtocolNumber, numbers(segments+1)...)); n != segments {
		t.Errorf("sent %d frames, want %d", n, segments)
	}
	o.patience = time.Hour
	if n, _ := o.WritePackets(frames(header.TCPProtocolNumber, 1)); n != 0 {
		t.Errorf("sent %d frames to a guest that is not there", n)
	}
	take(t, o, segments)
	if n, _ := o.WritePackets(frames(header.TCPProtocolNumber, numbers(segments)...)); n != segments {
		t.Errorf("sent %d frames to a guest that is back, want %d", n, segments)
	}
	sent := make(chan int)
	go func() {
		n, _ := o.WritePackets(frames(header.TCPProtocolNumber, 1))
		sent <- n
	}()
	take(t, o, segments+1)
	if n := <-sent; n != 1 {
		t.Error("a guest that is back is not waited for")
	}
}

func TestWaitEndsWithNetwork(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := newOutlet(ctx, 1500, gatewayMAC)
	o.patience = time.Hour
	time.AfterFunc(time.Millisecond, cancel)
	if n, _ := o.WritePackets(frames(header.TCPProtocolNumber, numbers(segments+1)...)); n != segments {
		t.Errorf("sent %d frames, want %d", n, segments)
	}
}

// Many connections have more under way than the queue holds. A guest that is
// slow gets all of it.
func TestSlowGuest(t *testing.T) {
	const connections, size = 16, 1 << 20
	n, guest, pause, resume := gatedNetwork(t, Config{Ports: []publish.Port{{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}}})
	l, err := gonet.ListenTCP(guest, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var clients []net.Conn
	for range connections {
		c, err := net.Dial("tcp", n.Published()[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
		wg.Go(func() {
			defer s.Close()
			if got, err := io.Copy(io.Discard, s); got != size || err != nil {
				t.Errorf("got %d bytes, %v", got, err)
			}
		})
	}
	pause()
	for _, c := range clients {
		wg.Go(func() {
			c.Write(make([]byte, size))
			c.(*net.TCPConn).CloseWrite()
		})
	}
	eventually(t, "a full queue", func() bool { return n.wire.ep.NumQueued() >= segments })
	time.Sleep(50 * time.Millisecond) // many round trips, yet no timeout
	resume()
	wg.Wait()
	sent, got := func() uint64 { return n.stack.NICInfo()[nic].Stats.Tx.Packets.Value() }, func() uint64 { return guest.NICInfo()[nic].Stats.Rx.Packets.Value() }
	eventually(t, "all frames", func() bool { return sent() == got() })
	if s := n.stack.Stats().TCP; s.Timeouts.Value() == 0 && s.Retransmits.Value() != 0 {
		t.Errorf("%d segments were sent again, none of them after a timeout", s.Retransmits.Value())
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// gatedNetwork is a network whose guest takes no frames between pause and
// resume, and is waited for.
func gatedNetwork(t *testing.T, c Config) (n *Network, guest *stack.Stack, pause, resume func()) {
	t.Helper()
	n, err := New(with(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	ours, near := link(t)
	far, theirs := link(t)
	gate := make(chan struct{}, 1)
	pause, resume = func() { gate <- struct{}{} }, func() { <-gate }
	go pass(near, far, func() { pause(); resume() })
	go pass(far, near, func() {})
	if err := n.Attach(ours); err != nil {
		t.Fatal(err)
	}
	n.wire.ep.patience = time.Minute
	return n, guestStack(t, theirs), pause, resume
}

// pass moves frames, each after wait.
func pass(from, to *os.File, wait func()) {
	buf := make([]byte, maxFrame)
	for {
		k, err := from.Read(buf)
		if err != nil {
			return
		}
		wait()
		if _, err := to.Write(buf[:k]); err != nil {
			return
		}
	}
}
