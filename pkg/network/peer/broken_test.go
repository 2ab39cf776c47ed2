package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sys/unix"
)

// A supervisor that does nothing costs its time only.
func TestStalled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stalled.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := DialTCP(ctx, path, request(80)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A guest that does not answer is no refusal.
func TestSilentGuest(t *testing.T) {
	_, socket := serving(t, silentGuest{}, full())
	if _, err := dialTCP(t, socket, request(80)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
}

type silentGuest struct{ loopback }

func (silentGuest) DialTCP(context.Context, netip.AddrPort, uint16) (relay.Stream, error) {
	return nil, context.DeadlineExceeded
}

func raw(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := connect(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// What is no request gets an answer that every version understands.
func TestGarbage(t *testing.T) {
	_, socket := serving(t, loopback{}, full())
	r := request(80)
	r.Protocol = TCP
	good, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int, b byte) []byte { g := bytes.Clone(good); g[i] = b; return g }
	for name, b := range map[string][]byte{
		"magic": at(0, 'x'), "version": at(4, 2), "protocol": at(5, 9), "short": good[:len(good)-1], "long": append(bytes.Clone(good), 0),
		"one byte": {1}, "much": make([]byte, 100_000),
	} {
		c := raw(t, socket)
		c.Write(b)
		answer := make([]byte, 100)
		n, err := c.Read(answer)
		if err != nil || !bytes.Equal(answer[:n], unknown.encode()) {
			t.Errorf("%s: %x, %v", name, answer[:n], err)
		}
		if n, err := c.Read(answer); err == nil {
			t.Errorf("%s: then %d more bytes", name, n)
		}
	}
}

// What a broken peer sends in a stream ends it, by a reset.
func TestBrokenMessages(t *testing.T) {
	_, socket := serving(t, loopback{}, full())
	for name, b := range map[string][]byte{
		"kind": {9, 1}, "end with data": {kindEnd, 1}, "long": append([]byte{kindData}, make([]byte, maxChunk+1)...),
	} {
		seen := make(chan error, 1)
		port := server(t, func(c *net.TCPConn) {
			_, err := io.ReadAll(c)
			seen <- err
		})
		c := mustDial(t, socket, request(port)).(*stream)
		if _, err := c.UnixConn.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := <-seen; !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: the guest saw %v, want a reset", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	_, socket := serving(t, loopback{}, Limits{Streams: 1, Flows: 1})
	port := server(t, func(c *net.TCPConn) { io.Copy(c, c); c.Close() })
	first := mustDial(t, socket, request(port))
	if _, err := dialTCP(t, socket, request(port)); !errors.Is(err, ErrBusy) {
		t.Errorf("one more stream: %v", err)
	}
	udp := echoing(t)
	old := soon(t, socket, request(udp))
	if _, err := DialUDP(t.Context(), socket, request(udp)); !errors.Is(err, ErrRefused) {
		t.Errorf("more than all: %v", err)
	}
	first.Close() // there is room for a flow, which takes the place of the other
	soon(t, socket, request(udp))
	if err := echoed(old, "still there?"); err == nil {
		t.Error("two flows where one may be")
	}
}

// soon opens a flow once there is room.
func soon(t *testing.T, socket string, r Request) relay.Socket {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		c, err := DialUDP(t.Context(), socket, r)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// Close ends what there is, and leaves no socket.
func TestClose(t *testing.T) {
	s, socket := serving(t, loopback{}, full())
	c := mustDial(t, socket, request(server(t, func(c *net.TCPConn) { io.Copy(c, c) })))
	u, err := DialUDP(t.Context(), socket, request(echoing(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	idle := raw(t, socket) // says nothing
	s.Close()
	if _, err := c.Read(make([]byte, maxChunk)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("stream: %v", err)
	}
	if err := echoed(u, "x"); err == nil {
		t.Error("a flow goes on")
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a connection goes on")
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
	s.Close()
	if err := s.Serve(nil); err == nil {
		t.Error("served after the end")
	}
}

// The place of a supervisor that was killed is taken.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peer.sock")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(path, full(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestShares(t *testing.T) {
	for files, want := range map[uint64]Limits{1 << 63: {512, 512}, 8192: {512, 512}, 1024: {64, 64}, 0: {1, 1}} {
		if got := limitsFor(files); got != want {
			t.Errorf("%d files: %+v, want %+v", files, got, want)
		}
	}
}
