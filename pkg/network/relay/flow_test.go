package relay

import (
	"bytes"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pair is two connected sockets on loopback.
func pair(t *testing.T) (a, b UDP) {
	t.Helper()
	first, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := first.LocalAddr().(*net.UDPAddr)
	second, err := net.DialUDP("udp4", nil, at)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	third, err := net.DialUDP("udp4", at, second.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close(); third.Close() })
	return UDP{second}, UDP{third}
}

// flow joins two pairs, and returns their outer ends.
func flow(t *testing.T, s *Flows, port uint16) (f *Flow, guest, host UDP, over <-chan struct{}) {
	t.Helper()
	guest, guestEnd := pair(t)
	host, hostEnd := pair(t)
	done := make(chan struct{})
	f = s.Open(port, func() {
		guestEnd.Close()
		hostEnd.Close()
		close(done)
	})
	t.Cleanup(f.Close)
	go f.Copy(t.Context(), hostEnd, guestEnd, false)
	go f.Copy(t.Context(), guestEnd, hostEnd, true)
	return f, guest, host, done
}

func pass(t *testing.T, from, to UDP, text string) {
	t.Helper()
	if _, err := from.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	err := to.Receive(time.Now().Add(time.Minute), &Buffers{}, func(b []byte) error {
		if string(b) != text {
			t.Errorf("got %d bytes, want %d", len(b), len(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDatagrams(t *testing.T) {
	_, guest, host, _ := flow(t, NewFlows(1), 123)
	for _, text := range []string{"a", "", strings.Repeat("long", 15000)} {
		pass(t, guest, host, text)
		pass(t, host, guest, text)
	}
}

func TestReceiveTimesOut(t *testing.T) {
	a, _ := pair(t)
	err := a.Receive(time.Now().Add(time.Millisecond), &Buffers{}, func([]byte) error { return nil })
	if err == nil || !os.IsTimeout(err) {
		t.Errorf("got %v", err)
	}
}

// A flow without an answer ends soon, one with an answer later, and one of
// questions for names soon again.
func TestTimes(t *testing.T) {
	s := NewFlows(9)
	s.first, s.idle = 2*time.Second, time.Hour
	ended := func(over <-chan struct{}, wait time.Duration) bool {
		select {
		case <-over:
			return true
		case <-time.After(wait):
			return false
		}
	}
	_, guest, host, over := flow(t, s, 123)
	pass(t, guest, host, "ping")
	if !ended(over, time.Minute) {
		t.Error("a flow without an answer goes on")
	}
	_, guest, host, over = flow(t, s, 123)
	pass(t, guest, host, "ping")
	pass(t, host, guest, "pong")
	if ended(over, 2*s.first) {
		t.Error("a flow with an answer has ended")
	}
	_, guest, host, over = flow(t, s, dnsPort)
	pass(t, guest, host, "name?")
	pass(t, host, guest, "address")
	if !ended(over, time.Minute) {
		t.Error("a question for a name goes on after its answer")
	}
	if got := s.Len(); got != 1 {
		t.Errorf("%d flows are left, want one", got)
	}
}

// Many who are never answered do not end the flow of one who is.
func TestEviction(t *testing.T) {
	const room = 5
	s := NewFlows(room)
	var ended []int
	var n atomic.Int64
	open := func() *Flow {
		i := int(n.Add(1)) - 1
		return s.Open(1, func() { ended = append(ended, i) })
	}
	open().Moved(true)
	for range 20 {
		open()
	}
	if want := []int{1, 2, 3, 4}; !slices.Equal(ended[:4], want) || slices.Contains(ended, 0) || len(ended) != 21-room {
		t.Errorf("ended %v", ended)
	}
	if got := s.Len(); got != room {
		t.Errorf("%d flows, want %d", got, room)
	}
}

func TestBuffersAreWhole(t *testing.T) {
	var b Buffers
	for range 3 {
		b.With(func(buf []byte) {
			if len(buf) != maxDatagram {
				t.Errorf("%d bytes", len(buf))
			}
			copy(buf, bytes.Repeat([]byte{1}, 10))
		})
	}
}
