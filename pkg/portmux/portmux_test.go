package portmux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a host and a guest session over a socket pair, as QEMU has it.
func pair(t testing.TB, host, guest []Option) (*Session, *Session) {
	t.Helper()
	a, b := socketPair(t)
	h, err := Host(a, host...)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Guest(b, guest...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); g.Close() })
	return h, g
}

func socketPair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if c[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return c[0], c[1]
}

func listenOn(t testing.TB, s *Session, port uint32) net.Listener {
	t.Helper()
	l, err := s.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dialTo(t testing.TB, s *Session, port uint32) net.Conn {
	t.Helper()
	c, err := s.Dial(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBothDirections(t *testing.T) {
	h, g := pair(t, nil, nil)
	for name, ends := range map[string][2]*Session{"host dials": {h, g}, "guest dials": {g, h}} {
		t.Run(name, func(t *testing.T) {
			l := listenOn(t, ends[1], 7)
			defer l.Close()
			want := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // more than a window
			go func() {
				c := dialTo(t, ends[0], 7)
				c.Write(want)
				c.Close()
			}()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d bytes, %v; want %d", len(got), err, len(want))
			}
		})
	}
}

func TestRefused(t *testing.T) {
	h, g := pair(t, nil, nil)
	for range 3 * maxInbound { // refused connections leave nothing behind
		if _, err := g.Dial(t.Context(), 99); !errors.Is(err, ErrRefused) {
			t.Fatalf("dial without listener: %v", err)
		}
	}
	l := listenOn(t, h, 5)
	if _, err := h.Listen(5); err == nil {
		t.Error("second listener on one port")
	}
	dialTo(t, g, 5)
	l.Close()
	if _, err := g.Dial(t.Context(), 5); !errors.Is(err, ErrRefused) {
		t.Errorf("dial to a closed listener: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept on a closed listener: %v", err)
	}
	listenOn(t, h, 5)
}

func TestBacklogIsBounded(t *testing.T) {
	h, g := pair(t, nil, nil)
	l := listenOn(t, g, 5)
	for range backlog {
		dialTo(t, h, 5)
	}
	if _, err := h.Dial(t.Context(), 5); !errors.Is(err, ErrRefused) {
		t.Fatalf("dial beyond the backlog: %v", err)
	}
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	dialTo(t, h, 5)
}

func TestHandler(t *testing.T) {
	h, g := pair(t, []Option{WithHandler(func(port uint32) (func(net.Conn), error) {
		if port != 80 {
			return nil, errors.New("no such port")
		}
		return func(c net.Conn) {
			fmt.Fprintf(c, "port %d", port)
			c.Close()
		}, nil
	})}, nil)
	_ = h
	c := dialTo(t, g, 80)
	if b, err := io.ReadAll(c); err != nil || string(b) != "port 80" {
		t.Errorf("read %q, %v", b, err)
	}
	if _, err := g.Dial(t.Context(), 81); !errors.Is(err, ErrRefused) {
		t.Errorf("dial: %v", err)
	}
}

func TestDialBeforeTheOtherEndIsUp(t *testing.T) {
	a, b := socketPair(t)
	h, err := Host(a)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	result := make(chan error, 1)
	go func() {
		_, err := h.Dial(t.Context(), 3)
		result <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Dial(ctx, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled dial: %v", err)
	}
	g, err := Guest(b)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	// The guest may answer before it listens: either outcome, but an outcome.
	listenOn(t, g, 3)
	if err := <-result; err != nil && !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	h, g := pair(t, nil, nil)
	l := listenOn(t, g, 3)
	c := dialTo(t, h, 3)
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	go func() {
		_, err := c.Read(make([]byte, 1))
		errs <- err
	}()
	go func() { // the peer does not read: this fills the window and waits
		_, err := c.Write(make([]byte, 1<<20))
		errs <- err
	}()
	if _, err := io.ReadFull(peer, make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestSessionEnds(t *testing.T) {
	h, g := pair(t, nil, nil)
	l := listenOn(t, h, 3)
	c := dialTo(t, g, 3)
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	g.Close()
	<-h.Done()
	if b, err := io.ReadAll(s); err != nil || string(b) != "words" {
		t.Errorf("read %q, %v", b, err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := h.Dial(t.Context(), 1); err == nil {
		t.Error("dial works")
	}
	for _, err := h.Listen(9); err == nil; _, err = h.Listen(9) {
		t.Error("listen works")
		break
	}
}

func TestLimits(t *testing.T) {
	h, g := pair(t, nil, nil)
	for name, c := range map[string]struct {
		from, to *Session
		limit    int
	}{"host": {h, g, maxOutbound}, "guest": {g, h, maxInbound}} {
		t.Run(name, func(t *testing.T) {
			l := listenOn(t, c.to, 3)
			defer l.Close()
			go func() {
				for {
					if _, err := l.Accept(); err != nil {
						return
					}
				}
			}()
			var last net.Conn
			for n := 0; n < c.limit; {
				conn, err := c.from.Dial(t.Context(), 3)
				if errors.Is(err, ErrRefused) { // the listener is behind
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				last = conn
				n++
			}
			if _, err := c.from.Dial(t.Context(), 3); !errors.Is(err, ErrTooMany) {
				t.Fatalf("one more: %v", err)
			}
			last.Close() // half of an end: the other side still holds it
			if _, err := c.from.Dial(t.Context(), 3); !errors.Is(err, ErrTooMany) {
				t.Fatalf("one more after a close by one side: %v", err)
			}
			select {
			case <-h.Done():
				t.Fatal("the session ended at its limit")
			default:
			}
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	h, g := pair(t, nil, nil)
	l := listenOn(t, g, 3)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := dialTo(t, h, 3)
			defer c.Close()
			want := bytes.Repeat([]byte{byte(i)}, 300<<10)
			go c.Write(want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("connection %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
	deadline := time.After(time.Minute)
	for h.mux.NumStreams() > 0 || g.mux.NumStreams() > 0 || h.guard.open() > 0 || g.guard.open() > 0 {
		select {
		case <-deadline:
			t.Fatalf("streams left: %d, %d", h.mux.NumStreams(), g.mux.NumStreams())
		case <-time.After(time.Millisecond):
		}
	}
}

func (g *guard) open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.streams) + g.own + g.peer
}
